package admin

import "net/http"

// Unpinned is one URL in the answer of /v1/unpin, in the order of the request.
type Unpinned struct {
	// URL is as it was given.
	URL string `json:"url"`
	// Bytes that were pinned, held or not.
	Bytes int64 `json:"bytes"`
	// Error says why it failed; one without it is done.
	Error string `json:"error,omitempty"`
}

// unpin serves POST /v1/unpin.
func (a *api) unpin(w http.ResponseWriter, r *http.Request) {
	body, status, err := readPrefetch(w, r)
	if err != nil {
		writeError(w, status, err.Error())
		return
	}
	if body.Where != "" || body.Pin || body.Header != nil {
		writeError(w, http.StatusBadRequest, "where, pin and header are for /v1/prefetch: send urls and range")
		return
	}
	off, n, err := parsePart(body.Range)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	results := make([]Unpinned, len(body.URLs))
	for i, url := range body.URLs {
		results[i].URL = url
		results[i].Bytes, err = a.transfers.Unpin(PrefetchRequest{URL: url, Off: off, Len: n})
		if err != nil {
			results[i].Error = err.Error()
		}
	}
	_ = writeJSON(w, http.StatusOK, map[string]any{"results": results}) // strings and numbers always marshal
}
