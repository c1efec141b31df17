package admin

import (
	"encoding/json"
	"net/http"
)

// maxOrderBody bounds the JSON of one order.
const maxOrderBody = 4 << 10

// Orders puts an operator's order for a peer into force: "cordon", "drain", or
// an empty one, which takes back what there was. The error says what is wrong
// with the order.
type Orders func(peer, order string) error

// OrderRequest is the body of a POST to /v1/orders.
type OrderRequest struct {
	Peer  string `json:"peer"`
	Order string `json:"order"`
}

func (a *api) order(orders Orders) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req OrderRequest
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrderBody))
		body.DisallowUnknownFields()
		if err := body.Decode(&req); err != nil {
			writeError(w, http.StatusBadRequest, `the body must be {"peer": ID, "order": "cordon", "drain" or ""}: `+err.Error())
			return
		}
		if err := orders(req.Peer, req.Order); err != nil {
			writeError(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		_ = writeJSON(w, http.StatusOK, req) // two strings always marshal
	}
}
