package admin

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestOrders(t *testing.T) {
	var got []string
	url := serve(t, Config{Orders: func(peer, order string) error {
		got = append(got, peer+" "+order)
		if order == "dance" {
			return errors.New("no such order")
		}
		return nil
	}})
	post := func(contentType, body string) (int, string) {
		t.Helper()
		res, err := http.Post(url+"/v1/orders", contentType, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for _, tt := range []struct {
		name, contentType, body string
		status                  int
		holds, taken            string
	}{
		{"order", "application/json", `{"peer":"p","order":"drain"}`, 200, `"drain"`, "p drain"},
		{"taken back", "application/json", `{"peer":"p","order":""}`, 200, `"peer": "p"`, "p "},
		{"refused", "application/json", `{"peer":"p","order":"dance"}`, 422, "no such order", "p dance"},
		{"no JSON", "application/json", `cordon`, 400, "the body must be", ""},
		{"unknown field", "application/json", `{"peer":"p","verb":"drain"}`, 400, "verb", ""},
		{"too long", "application/json", `{"peer":"` + strings.Repeat("p", maxOrderBody) + `"}`, 400, "too large", ""},
		{"a form", "application/x-www-form-urlencoded", "peer=p", 415, "Content-Type", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got = nil
			status, text := post(tt.contentType, tt.body)
			if status != tt.status || !strings.Contains(text, tt.holds) || strings.Join(got, ",") != tt.taken {
				t.Errorf("%d %s, orders %q", status, text, got)
			}
		})
	}
	if resp, _ := ask(t, http.MethodGet, url+"/v1/orders", nil); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", resp.Status)
	}
}
