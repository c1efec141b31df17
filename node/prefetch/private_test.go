package prefetch

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// asked is a seed that says that the file is private, and lets in who asks.
type asked struct {
	t    *testing.T
	self peer.ID
	size int64
}

func (a asked) AskOrigin(context.Context, content.Task, rangeread.Origin) (seed.Verdict, error) {
	return seed.Verdict{}, errors.New("this node is not to ask")
}

func (a asked) AskSeed(_ context.Context, task content.Task, _ rangeread.Origin) (seed.Verdict, bool, error) {
	key, issuer := p2ptest.Key(a.t)
	v := seed.Verdict{Private: true}
	v.Generation, _ = content.NewGeneration(`"1"`, "", a.size)
	var err error
	v.Grant, err = content.SignGrant(key, issuer, content.Grant{
		Task: task.ID, Generation: v.Generation, Upstream: "http://origin.test", Peer: a.self, Expires: time.Now().Add(time.Hour).Unix(),
	})
	return v, false, err
}

// TestSpreadPrivate: a seed is shown the credentials and the grant; who was one
// when the task was assigned, and is no more, is shown nothing.
func TestSpreadPrivate(t *testing.T) {
	r := newRigWith(t, mib, func(c *seed.Config) { c.Authorizer = asked{t, c.Self, mib} }, "former", "a")
	field := rangeread.Field{Name: "Authorization", Value: "Bearer x"}
	if _, err := r.Fetch(t.Context(), Request{URL: fileURL, Header: http.Header{field.Name: {field.Value}}, Len: -1, Seeds: true}, nil); err != nil {
		t.Fatal(err)
	}
	if len(r.seeds.by) != 1 || r.seeds.by[0] != "a" {
		t.Fatalf("asked %v", r.seeds.by)
	}
	req := r.seeds.asked[0]
	if !slices.Equal(req.Origin.Header, []rangeread.Field{field}) || len(req.Grant) == 0 || !slices.Equal(req.Skip, []peer.ID{"former"}) {
		t.Errorf("%+v", req)
	}
}

// TestCredentials: no field but those that let somebody in, and none that would
// be two.
func TestCredentials(t *testing.T) {
	for name, c := range map[string]struct {
		header http.Header
		good   bool
	}{
		"none":         {nil, true},
		"both":         {http.Header{"Cookie": {"a=b"}, "Authorization": {"Bearer x"}}, true},
		"another":      {http.Header{"Authorization": {"x"}, "Range": {"bytes=0-1"}}, false},
		"another line": {http.Header{"Authorization": {"x\r\nHost: y"}}, false},
		"large":        {http.Header{"Cookie": {strings.Repeat("x", maxCredentials)}}, false},
	} {
		fields, err := credentials(c.header)
		if (err == nil) != c.good || err != nil && !errors.Is(err, ErrArgument) || c.good && len(fields) != len(c.header) {
			t.Errorf("%s: %v, %v", name, fields, err)
		}
	}
	r := newRig(t, mib, "a")
	if _, err := r.Fetch(t.Context(), Request{URL: fileURL, Header: http.Header{"Range": {"bytes=0-1"}}, Len: -1}, nil); !errors.Is(err, ErrArgument) {
		t.Errorf("a field that is no credential: %v", err)
	}
}
