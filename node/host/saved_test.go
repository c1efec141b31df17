package host

import (
	"bytes"
	"testing"
)

// FuzzSavedPeers: of whatever stands in the file, no more is taken than a node
// remembers, and each has a name and whole addresses.
func FuzzSavedPeers(f *testing.F) {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for _, s := range []string{
		`[{"id":"` + id + `","addrs":["/ip4/127.0.0.1/tcp/1","/dns4/x/udp/1/quic-v1"],"seen":"2026-11-23T10:00:00Z"}]`,
		`[{"id":"` + id + `","addrs":["/ip4/127.0.0.1/tcp/99999"]}]`, `[{"addrs":[""]}]`, `[{"id":""}]`, `[{}]`, `null`, `{}`, `[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeMet(bytes.NewReader(text))
		if err != nil && len(m) != 0 || len(m) > maxMet {
			t.Fatalf("%d peers with the error %v", len(m), err)
		}
		for key, p := range m {
			if key == "" || key != p.ID || len(p.Addrs) > maxMetAddrs {
				t.Errorf("%q is %+v", key, p)
			}
			for _, a := range p.Addrs {
				if len(a) == 0 {
					t.Errorf("%s has an empty address", key)
				}
			}
		}
	})
}
