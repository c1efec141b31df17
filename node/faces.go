package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/p2pnode/p2pnode/node/admin"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/node/proxy"
	"github.com/p2pnode/p2pnode/seed/origin"
)

// listen binds an HTTP face.
func listen(flag, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: stop who has the port, or choose another with --%s", addr, cause(err), flag)
	}
	return l, nil
}

// cause drops what net.OpError says again.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// proxyURL is where clients of this machine reach the proxy.
func (n *Node) proxyURL() string {
	scheme := "http://"
	if n.proxyTLS != nil {
		scheme = "https://"
	}
	addr, ok := n.proxyListener.Addr().(*net.TCPAddr)
	if ok && addr.IP.IsUnspecified() {
		return scheme + net.JoinHostPort("127.0.0.1", strconv.Itoa(addr.Port))
	}
	return scheme + n.proxyListener.Addr().String()
}

// faces are the HTTP servers.
func (n *Node) faces() []func(context.Context) error {
	cfg := n.cfg
	handler := proxy.New(n.web.proxyConfig(proxy.Config{
		Opener: opener{files: n.files, touched: n.touched(), whole: n.cfg.Fill == FillWhole}, Filter: n.filters.Current, Rules: n.rules, Access: n.access,
		DialLocal: dialUnder(origin.AnywhereBut(n.isOwn)), DialRemote: dialUnder(n.policy), Self: n.isSelf,
		Name: "p2pnode-" + n.self.String(), Logger: cfg.Logger, Registerer: cfg.Registerer,
	}))
	var (
		orders admin.Orders
		revoke admin.Revoke
	)
	if n.embedded != nil {
		orders, revoke = n.embedded.order, n.embedded.revoke()
	}
	api := admin.New(admin.Config{
		Status: func() any { return n.status() }, Tasks: func() any { return n.tasks() }, Seeds: func() any { return n.tasks() },
		Peers:     func() any { return n.peers(time.Now()) },
		Transfers: n.transfers, Orders: orders, Revoke: revoke, Limits: n.limits.Change, Ready: n.readyError, Gatherer: cfg.Gatherer, Hosts: hostNames(cfg.Admin), Logger: cfg.Logger,
	})
	proxyListener := n.proxyListener
	if n.proxyTLS != nil {
		proxyListener = tls.NewListener(proxyListener, n.proxyTLS)
	}
	return []func(context.Context) error{
		proxy.NewServer(handler, proxyListener).Run,
		admin.NewServer(n.adminListener, api, cfg.Logger).Run,
	}
}

// dialUnder connects clients to what a policy admits.
func dialUnder(p *origin.Policy) proxy.DialFunc {
	dial := p.DialContext(new(net.Dialer))
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		switch {
		case errors.Is(err, origin.ErrSelf):
			return nil, proxy.ErrLoop // no flag opens it
		case errors.Is(err, origin.ErrForbiddenTarget):
			return nil, forbidden{cause(err)}
		}
		return conn, err
	}
}

// forbidden makes a policy's refusal proxy.ErrForbidden, of which its text says
// enough.
type forbidden struct{ error }

// Is serves errors.Is.
func (f forbidden) Is(target error) bool { return target == proxy.ErrForbidden }

// Unwrap serves errors.As.
func (f forbidden) Unwrap() error { return f.error }

// isSelf reports whether host:port is one of this node's own HTTP ports.
func (n *Node) isSelf(hostport string) bool {
	name, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip, _ := netip.ParseAddr(name)
	for _, l := range []net.Listener{n.proxyListener, n.adminListener} {
		own, ok := l.Addr().(*net.TCPAddr)
		if !ok || port != strconv.Itoa(own.Port) {
			continue
		}
		if name == "localhost" || ip.Unmap().IsLoopback() || ip.IsUnspecified() || ip.Unmap() == own.AddrPort().Addr().Unmap() {
			return true
		}
		if own.IP.IsUnspecified() && ip.IsValid() && isOwnAddr(ip) {
			return true
		}
	}
	return false
}

// isOwn reports whether an address is one of this node's own ports, for people or
// for peers: nobody has it fetch from there.
func (n *Node) isOwn(ap netip.AddrPort) bool {
	if n.isSelf(ap.String()) {
		return true
	}
	to := ap.Addr()
	switch to { // what the kernel makes of them
	case netip.IPv4Unspecified():
		to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		to = netip.IPv6Loopback()
	}
	hosts := []*host.Host{n.host}
	if n.embedded != nil {
		hosts = append(hosts, n.embedded.host)
	}
	for _, h := range hosts {
		if h == nil {
			continue
		}
		for _, a := range h.Network().ListenAddresses() {
			own, err := manet.ToNetAddr(a)
			tcp, ok := own.(*net.TCPAddr)
			if err != nil || !ok || tcp.Port != int(ap.Port()) {
				continue
			}
			at := tcp.AddrPort().Addr().Unmap()
			if at == to || at.IsUnspecified() && (to.IsLoopback() || isOwnAddr(to)) {
				return true
			}
		}
	}
	return false
}

// isOwnAddr reports whether an interface of this machine has an address.
func isOwnAddr(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip.Unmap() {
			return true
		}
	}
	return false
}

// upstreamProxy is http.ProxyFromEnvironment, but for this node itself: a
// machine whose HTTP_PROXY is its daemon must not make the daemon ask itself.
func (n *Node) upstreamProxy(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if u != nil && n.isSelf(u.Host) {
		return nil, nil
	}
	return u, err
}
