package admin

import (
	"encoding/json"
	"net/http"
)

// Revoke puts a signed revocation of a membership into force, and spreads it.
// The error says what is wrong with it.
type Revoke func(revocation string) error

// RevokeRequest is the body of a POST to /v1/revocations.
type RevokeRequest struct {
	// Revocation is what `p2pnode swarm revoke` prints.
	Revocation string `json:"revocation"`
}

func (a *api) revoke(revoke Revoke) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req RevokeRequest
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrderBody))
		body.DisallowUnknownFields()
		if err := body.Decode(&req); err != nil {
			writeError(w, http.StatusBadRequest, `the body must be {"revocation": "p2pnode-revoke-…"}: `+err.Error())
			return
		}
		if err := revoke(req.Revocation); err != nil {
			writeError(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		_ = writeJSON(w, http.StatusOK, req) // a string always marshals
	}
}
