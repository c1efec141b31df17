package node

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// FuzzState: whatever the files of a data directory hold, what is taken of them
// is valid, and says the same when it is written and read again.
func FuzzState(f *testing.F) {
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	swarm, err := membership.SwarmID(key)
	if err != nil {
		f.Fatal(err)
	}
	var revoked []byte
	for i := range 2 {
		r, err := membership.Revoke(key, membership.Revocation{Token: membership.TokenID{byte(i + 1)}})
		if err != nil {
			f.Fatal(err)
		}
		revoked = append(revoked, r.String()+"\n"...)
	}
	f.Add(revoked)
	f.Add(append([]byte("\n\r\nx\n"), revoked...))
	for _, text := range []string{
		`["` + swarm.String() + `","` + swarm.String() + `"]`, `[""]`, `[null]`, "null",
		`["b","a","a"]`, `["a","X-Amz-Signature"]`, `["a&b"]`, `["own"]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		checkSigners(t, text)
		checkFilterFile(t, text)
		read := func(text string) *member {
			m := &member{log: slog.New(slog.DiscardHandler), revocations: membership.NewRevocations(swarm)}
			m.readRevocations(text)
			return m
		}
		m := read(string(text))
		if again := read(m.writeRevocations()); again.Sum() != m.Sum() || len(again.All()) != len(m.All()) {
			t.Errorf("%d revocations, then %d", len(m.All()), len(again.All()))
		}
		if known := bytes.Contains(text, revoked); known && m.Sum() == 0 {
			t.Error("a revocation is not read")
		}
	})
}

func checkSigners(t *testing.T, text []byte) {
	ids, err := readSigners(text)
	if err != nil {
		return
	}
	if slices.ContainsFunc(ids, func(id peer.ID) bool { return id.Validate() != nil }) {
		t.Errorf("signers %q of %q", ids, text)
	}
	written, err := json.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := readSigners(written); err != nil || !slices.Equal(again, ids) {
		t.Errorf("signers %q, then %q, %v", ids, again, err)
	}
}

func checkFilterFile(t *testing.T, text []byte) {
	load := func(text []byte) (*filters, error) {
		own := content.NewFilter([]string{"own"})
		f := &filters{own: own, log: slog.New(slog.DiscardHandler)}
		f.current.Store(&own)
		return f, f.load(text)
	}
	f, err := load(text)
	got := f.Current()
	if !got.Valid() || slices.ContainsFunc(got.Query, content.IsSecretParameter) || err != nil && !slices.Equal(got.Query, []string{"own"}) {
		t.Errorf("files are named by %q of %q, %v", got.Query, text, err)
	}
	written, err := json.Marshal(f.Swarm())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := load(written); err != nil || again.Current().Version != got.Version || !slices.Equal(again.Swarm(), f.Swarm()) {
		t.Errorf("filter %q, then %q, %v", got.Query, again.Current().Query, err)
	}
}
