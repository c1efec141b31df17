package rangeread

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// Every status, instead of an answer and in the middle of one, arrives as the
// *Error that it is, and the stream serves the next request.
func TestStatuses(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 3*content.BlockSize, key, id)
	var fail error
	var after int64
	h := handler(func(_ context.Context, req Request, a *Answer) error {
		if after == 0 {
			return fail
		}
		r, err := a.Header(Header{Meta: m.meta})
		if err != nil {
			return err
		}
		for i := int64(0); a.Pos() < after; i++ {
			if err := a.Complete(i, min(r.End(), after), m.seals[i], m.outboards[i], m.read); err != nil {
				return err
			}
		}
		return fail
	})
	e := serve(t, h, id)
	addr, err := ma.NewMultiaddr("/ip4/10.1.2.3/tcp/65000")
	if err != nil {
		t.Fatal(err)
	}
	for n := range pb.Status_name {
		sent := &Error{
			Status: Status(n), OriginStatus: 503, RetryAfter: 1500 * time.Millisecond, Detail: "what failed",
			Size: 12345, Holders: []peer.AddrInfo{{ID: id, Addrs: []ma.Multiaddr{addr}}},
		}
		if sent.Status == StatusOK {
			continue
		}
		for _, after = range []int64{0, content.LeafSize, content.BlockSize + content.LeafSize} {
			fail = fmt.Errorf("wrapped: %w", sent)
			want := *sent
			want.Peer = e.source
			if after > 0 {
				want.Holders = nil // not in mid-answer
			}
			if after > 0 || sent.Status != StatusRange {
				want.Size = -1
			}
			r, err := readAll(e.client, e.source, m.request(0, m.meta.Size))
			var got *Error
			if !errors.As(err, &got) || !reflect.DeepEqual(*got, want) {
				t.Errorf("%v after %d bytes: got %+v, want %+v", sent.Status, after, got, want)
			}
			if int64(len(r.data)) != after || string(r.data) != string(m.data[:after]) {
				t.Errorf("%v after %d bytes: %d bytes", sent.Status, after, len(r.data))
			}
		}
	}
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"error of another kind", errors.New("disk\nbroke\x00"), "range read: INTERNAL from " + e.source.String() + ": disk?broke?"},
		{"long detail", NewError(StatusBusy, "%s", strings.Repeat("x", 9999)), "range read: BUSY from " + e.source.String() + ": " + strings.Repeat("x", maxDetail)},
		{"origin status", &Error{Status: StatusOriginError, OriginStatus: 404, Size: -1}, "range read: ORIGIN_ERROR from " + e.source.String() + ", origin status 404"},
		{"none, and no bytes", nil, "range read: INTERNAL from " + e.source.String() + ": short answer"},
		{"unknown status", &Error{Status: 99, Size: -1}, "range read: 99 from " + e.source.String()},
	} {
		for _, after = range []int64{0, content.LeafSize} {
			fail = tc.err
			if _, err := readAll(e.client, e.source, m.request(0, m.meta.Size)); err == nil || err.Error() != tc.want {
				t.Errorf("%s after %d bytes: %v", tc.name, after, err)
			}
		}
	}
	if n := e.client.idle(e.source); n != 1 {
		t.Errorf("%d idle streams, want the one that served every request", n)
	}
}

// A request for nothing is answered by the header alone, also for an empty file.
func TestHeaderOnly(t *testing.T) {
	key, id := p2ptest.Key(t)
	for _, size := range []int64{0, 1, 5 << 20} {
		m := newMemory(t, size, key, id)
		m.meta.ETag, m.meta.LastModified, m.meta.ContentType, m.meta.Sequential = `"é"`, "Mon, 02 Jan 2006 15:04:05 GMT", "text/plain", true
		want := Header{
			Meta: m.meta, Source: SourceOrigin, CacheControl: "max-age=60", Age: 90 * time.Second,
			Holders: []peer.AddrInfo{{ID: id}},
		}
		e := serve(t, handler(func(_ context.Context, _ Request, a *Answer) error {
			h := want
			for range 20 { // more than may be sent
				h.Holders = append(h.Holders, want.Holders...)
			}
			_, err := a.Header(h)
			return err
		}), id)
		r, err := readAll(e.client, e.source, m.request(7, 0))
		if err != nil || len(r.pieces) != 0 {
			t.Fatalf("file of %d bytes: %d pieces, error %v", size, len(r.pieces), err)
		}
		if len(r.header.Holders) != maxHolders {
			t.Errorf("%d holders", len(r.header.Holders))
		}
		r.header.Holders = r.header.Holders[:1]
		if !reflect.DeepEqual(r.header, want) {
			t.Errorf("header %+v, want %+v", r.header, want)
		}
		var answer *Error
		if _, err := readAll(e.client, e.source, m.request(size, 1)); !errors.As(err, &answer) || answer.Status != StatusRange || answer.Size != size {
			t.Errorf("a range behind %d bytes: %v", size, err)
		}
	}
}

// A header is of the file that was asked for.
func TestHeaderOfAnotherFile(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 1000, key, id)
	c := NewClient(ClientConfig{Trusted: m.trusted})
	answer := record(t, m, id, m.request(0, 1))
	other := m.request(0, 1)
	other.Generation[0] ^= 1
	if _, reused, err := play(c, id, other, answer); !errors.Is(err, ErrProtocol) || reused {
		t.Errorf("another generation: %v", err)
	}
	if _, reused, err := play(c, id, m.request(1000, 1), answer); !errors.Is(err, ErrProtocol) || reused {
		t.Errorf("a range behind the end: %v", err)
	}
	other.Generation = content.Generation{}
	if _, _, err := play(c, id, other, answer); err != nil {
		t.Errorf("whichever generation: %v", err)
	}
}

// What does not fit a frame is refused before a byte is sent, as an INTERNAL
// error of the source and not as a broken stream.
func TestHeaderTooLarge(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 1000, key, id)
	e := serve(t, handler(func(_ context.Context, _ Request, a *Answer) error {
		h := Header{Meta: m.meta}
		h.ETag = strings.Repeat("x", maxHeader)
		_, err := a.Header(h)
		return err
	}), id)
	for range 2 {
		if _, err := readAll(e.client, e.source, m.request(0, 1)); StatusOf(err) != StatusInternal || !strings.Contains(err.Error(), "too large") {
			t.Errorf("got %v", err)
		}
	}
	if n := e.client.idle(e.source); n != 1 {
		t.Errorf("%d idle streams", n)
	}
}

func TestStatusOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Status
	}{
		{nil, StatusOK},
		{errors.New("x"), StatusInternal},
		{fmt.Errorf("y: %w", NewError(StatusChanged, "z")), StatusChanged},
	} {
		if got := StatusOf(tc.err); got != tc.want {
			t.Errorf("StatusOf(%v): %v", tc.err, got)
		}
	}
}
