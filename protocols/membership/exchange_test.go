package membership

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

// stub is a Checker and an Issuer that does as it is told.
type stub struct {
	chain Chain
	err   error
	ins   chan bool
	asked chan peer.ID
}

func (s stub) Chain() Chain                             { return s.chain }
func (s stub) Check(network.Conn, Chain) error          { return s.err }
func (s stub) Admit(_ network.Conn, _ Chain, both bool) { s.ins <- both }
func (s stub) Confirm(network.Conn)                     { s.ins <- true }
func (s stub) Join(from peer.ID, _ Token) (Chain, error) {
	s.asked <- from
	return s.chain, s.err
}

func (s stub) Renew(from peer.ID, _ Chain) (Chain, error) {
	s.asked <- from
	return s.chain, s.err
}

func newStub(chain Chain, err error) stub {
	return stub{chain, err, make(chan bool, 4), make(chan peer.ID, 4)}
}

// pair connects two hosts, of which the second answers.
func pair(t *testing.T, w world, answering stub) (a, b host.Host, ended chan error) {
	t.Helper()
	hosts := p2ptest.Hosts(t, 2)
	ended = make(chan error, 4)
	hosts[1].SetStreamHandler(Protocol, func(st network.Stream) { ended <- Handle(st, answering, answering, id(t, w.swarm)) })
	if err := hosts[0].Connect(t.Context(), peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}); err != nil {
		t.Fatal(err)
	}
	return hosts[0], hosts[1], ended
}

func TestHello(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		name                 string
		theirs, ours         error
		want, wantOther      error
		admitted, otherAdmit []bool
	}{
		{"both good", nil, nil, nil, nil, []bool{true}, []bool{false, true}},
		{"we are refused", ErrExpired, nil, ErrExpired, ErrExpired, nil, nil},
		{"we refuse", nil, ErrRevoked, ErrRevoked, ErrRevoked, nil, []bool{false}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			there, here := newStub(w.issuer, tc.theirs), newStub(w.chain, tc.ours)
			a, b, ended := pair(t, w, there)
			err := Hello(t.Context(), a.Network().ConnsToPeer(b.ID())[0], here)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("hello: %v, want %v", err, tc.want)
			}
			if err := <-ended; !errors.Is(err, tc.wantOther) || (err == nil) != (tc.wantOther == nil) {
				t.Errorf("the other end: %v, want %v", err, tc.wantOther)
			}
			for _, c := range []struct {
				got  chan bool
				want []bool
			}{{here.ins, tc.admitted}, {there.ins, tc.otherAdmit}} {
				close(c.got)
				var got []bool
				for v := range c.got {
					got = append(got, v)
				}
				if len(got) != len(c.want) {
					t.Errorf("admitted %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestJoinAndRenew(t *testing.T) {
	w := newWorld(t)
	s, _ := newSecret(t, w, Token{Role: Seed})
	there := newStub(w.chain, nil)
	a, b, _ := pair(t, w, there)
	// The answer is of another peer: it is not taken.
	if _, err := Join(t.Context(), a, b.ID(), s); !errors.Is(err, ErrMalformed) {
		t.Errorf("a certificate of another peer: %v", err)
	}
	if from := <-there.asked; from != a.ID() {
		t.Errorf("asked by %s", from)
	}
	good, err := Issue(w.super, w.issuer, Certificate{Peer: a.ID(), Role: Seed, NotBefore: at, Expires: at.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	there = newStub(good, nil)
	b.SetStreamHandler(Protocol, func(st network.Stream) { _ = Handle(st, there, there, id(t, w.swarm)) })
	for name, f := range map[string]func() (Chain, error){
		"join":  func() (Chain, error) { return Join(t.Context(), a, b.ID(), s) },
		"renew": func() (Chain, error) { return Renew(t.Context(), a, b.ID(), id(t, w.swarm), good) },
	} {
		if chain, err := f(); err != nil || !bytes.Equal(chain, good) {
			t.Errorf("%s: %x, %v", name, chain, err)
		}
	}
	for _, refusal := range []error{ErrUsedUp, ErrExpired, ErrRevoked, ErrBusy, ErrUnable} {
		there = newStub(nil, refusal)
		var refused *RefusedError
		if _, err := Join(t.Context(), a, b.ID(), s); !errors.Is(err, refusal) || !errors.As(err, &refused) {
			t.Errorf("refused with %v: %v", refusal, err)
		}
	}
	b.SetStreamHandler(Protocol, func(st network.Stream) { _ = Handle(st, there, nil, id(t, w.swarm)) })
	if _, err := Join(t.Context(), a, b.ID(), s); !errors.Is(err, ErrUnable) {
		t.Errorf("a peer that issues nothing: %v", err)
	}
}

// A stream that breaks the rules ends, and the handler with it.
func TestHandleBadStreams(t *testing.T) {
	w := newWorld(t)
	for name, send := range map[string]func(st network.Stream) error{
		"no bytes":   func(st network.Stream) error { return st.CloseWrite() },
		"huge frame": func(st network.Stream) error { _, err := st.Write([]byte{0xff, 0xff, 0xff, 0x7f, 1, 2, 3}); return err },
		"cut frame": func(st network.Stream) error {
			_, err := st.Write([]byte{9, 1})
			return errors.Join(err, st.CloseWrite())
		},
		"no message": func(st network.Stream) error { _, err := st.Write([]byte{3, 0xff, 0xff, 0xff}); return err },
		"no kind":    func(st network.Stream) error { return frame.NewWriter(st, maxMessage).Write(&pb.Request{}) },
		"no chain": func(st network.Stream) error {
			return frame.NewWriter(st, maxMessage).Write(&pb.Request{Of: &pb.Request_Hello{}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			there := newStub(w.issuer, ErrMalformed)
			a, b, ended := pair(t, w, there)
			st, err := a.NewStream(t.Context(), b.ID(), Protocol)
			if err != nil {
				t.Fatal(err)
			}
			if err := send(st); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil {
				t.Error("the handler is content")
			}
			ctx, cancel := context.WithTimeout(t.Context(), Timeout)
			defer cancel()
			_ = frame.Interruptible(ctx, st, Timeout, func() error { _, err := io.Copy(io.Discard, st); return err })
			if len(there.ins) != 0 {
				t.Error("somebody was admitted")
			}
		})
	}
}

func FuzzRequest(f *testing.F) {
	w := newWorld(f)
	s, _ := newSecret(f, w, Token{Role: Seed, Uses: 1})
	join, err := s.join(id(f, w.peer))
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []*pb.Request{
		join,
		{Of: &pb.Request_Hello{Hello: &pb.Hello{Chain: chainToProto(w.chain)}}},
		{Of: &pb.Request_Renew{Renew: &pb.Renew{Chain: chainToProto(w.chain)}}},
	} {
		b, err := encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	swarm, from := id(f, w.swarm), id(f, w.peer)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.Request
		if frame.Unmarshal(b, &m) != nil {
			return
		}
		if j := m.GetJoin(); j != nil {
			if tok, err := openJoin(j, swarm, from); err == nil && (tok.Swarm != swarm || tok.Role != Seed) {
				t.Errorf("accepted %+v", tok)
			}
		}
		if h := m.GetHello(); h != nil {
			if c, _, err := chainFromProto(h.GetChain()).Open(swarm); err == nil && c.Swarm != swarm {
				t.Errorf("accepted %+v", c)
			}
		}
	})
}

// FuzzResponse: of whatever comes back for a join secret, only a chain of this
// swarm is taken for one, and no refusal for a yes.
func FuzzResponse(f *testing.F) {
	w := newWorld(f)
	for _, m := range []*pb.Response{
		{Status: pb.Status_OK, Chain: chainToProto(w.chain)}, {Status: pb.Status_OK}, {Status: pb.Status_REVOKED, Chain: chainToProto(w.chain)}, {Status: 99},
	} {
		var b bytes.Buffer
		if err := frame.NewWriter(&b, maxMessage).Write(m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	swarm := id(f, w.swarm)
	f.Fuzz(func(t *testing.T, b []byte) {
		chain, err := response(frame.NewReader(bytes.NewReader(b), maxMessage))
		if err != nil {
			if chain != nil {
				t.Errorf("a chain with the error %v", err)
			}
			return
		}
		if c, _, err := chain.Open(swarm); err == nil && c.Swarm != swarm {
			t.Errorf("accepted %+v", c)
		}
	})
}
