package admin

import (
	"io"
	"net/http"
)

// Limits changes the limits that a JSON object names and returns those in
// force, for JSON. The error says what is wrong with one.
type Limits func(change []byte) (any, error)

func (a *api) limits(limits Limits) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrderBody))
		if err != nil {
			writeError(w, http.StatusBadRequest, "the body must be a JSON object of limits, {} to change none: "+err.Error())
			return
		}
		now, err := limits(text)
		if err != nil {
			writeError(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		_ = writeJSON(w, http.StatusOK, now) // numbers always marshal
	}
}
