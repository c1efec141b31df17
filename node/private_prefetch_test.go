package node_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/node/admin"
)

// prefetched has a node bring a file in, and returns what it says at the end.
func prefetched(t *testing.T, n *node.Node, where, address string, header http.Header) admin.Event {
	t.Helper()
	body := map[string]any{"urls": []string{address}, "where": where}
	if fields := map[string]string{}; header != nil {
		for name := range header {
			fields[name] = header.Get(name)
		}
		body["header"] = fields
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.Info().Admin+"/v1/prefetch", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return transferred(t, req)
}

// transferred sends an order to an admin port, and returns its result.
func transferred(t *testing.T, req *http.Request) (ev admin.Event) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := json.NewDecoder(res.Body); ev.Event != "result"; {
		ev = admin.Event{}
		if err := lines.Decode(&ev); err != nil {
			t.Fatalf("%s: %v", res.Status, err)
		}
	}
	return ev
}

// wantCopies wants a file to have left the origin so many times. On a machine that
// has more to do than it can, a seed that says nothing for so long that it is taken
// for dead may cost a block.
func (v *vault) wantCopies(path string, data []byte, copies int64) {
	v.t.Helper()
	silent := v.metric("p2pnode_rangeread_client_silent_total")
	if got, size := v.origin.Bytes(path), copies*int64(len(data)); got < size || got > size+silent*content.BlockSize {
		v.t.Errorf("%d bytes of %d left the origin, %d sources were silent", got, size, silent)
		for _, h := range v.origin.Hits(path) {
			v.t.Logf("%+v", h)
		}
	}
}

// TestPrivatePrefetch: who has credentials brings a private file in, on the seeds
// or here, and it leaves the origin once; it stays private. Who has none, or bad
// ones, gets the origin's refusal.
func TestPrivatePrefetch(t *testing.T) {
	v := newVault(t, nil)
	reader := len(v.nodes) - 1
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			v.t = t
			path := "/" + k.name
			data := p2ptest.Bytes(7, 3<<20+17)
			base := v.put(path, data)
			v.allow(true, k.name+"-ann", k.name+"-bob")
			for _, credential := range []string{"", "wrong"} {
				address, header := k.with(base, credential)
				for _, where := range []string{"seeds", "here"} {
					if ev := prefetched(t, v.nodes[reader], where, address, header); !strings.Contains(ev.Error, strconv.Itoa(k.status)) || credential != "" && strings.Contains(ev.Error, credential) {
						t.Errorf("%s, %q: %+v", where, credential, ev)
					}
				}
			}
			if got := v.origin.Bytes(path); got != 0 {
				t.Errorf("%d bytes left the origin for nobody", got)
			}
			address, header := k.with(base, k.name+"-ann")
			ev := prefetched(t, v.nodes[reader], "seeds", address, header)
			if ev.Error != "" || ev.Bytes.Origin+ev.Bytes.Peer != int64(len(data)) {
				t.Errorf("on the seeds: %+v, %+v", ev, ev.Bytes)
			}
			v.wantCopies(path, data, 1)
			ev = prefetched(t, v.nodes[reader], "here", address, header)
			if ev.Error != "" || ev.Bytes.Origin+ev.Bytes.Peer != int64(len(data)) { // wantCopies says how much of it the origin may have sent
				t.Errorf("here: %+v, %+v", ev, ev.Bytes)
			}
			for n := range v.nodes {
				address, header := k.with(base, k.name+"-bob")
				v.wantFile(n, address, header, data)
				for _, credential := range []string{"", "wrong"} {
					address, header := k.with(base, credential)
					v.wantRefused(n, address, header, k.status)
				}
			}
			v.wantCopies(path, data, 1)
		})
	}
}
