package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/p2pnode/p2pnode/internal/content"
)

// face is one way to use the port; its value is a metric label.
type face string

const (
	faceNone    face = "none"
	faceForward face = "forward"
	faceGateway face = "gateway"
	faceConnect face = "connect"
	faceMirror  face = "mirror"
)

// gatewayPrefix is the path under which the gateway serves absolute URLs.
const gatewayPrefix = "/url/"

// target is what a request asks for.
type target struct {
	face face
	// raw is the absolute URL, byte for byte as the client wrote it.
	raw string
	// url is raw parsed, such that a transport asks for the same bytes.
	url *url.URL
}

// parseTarget reads the request target (RFC 9112 section 3.2) as it came, since
// Go's parsed form has lost double slashes and some encodings. The error wraps
// content.ErrURL.
func parseTarget(r *http.Request) (target, error) {
	switch {
	case strings.HasPrefix(r.RequestURI, gatewayPrefix):
		raw := r.RequestURI[len(gatewayPrefix):]
		return newTarget(faceGateway, restoreSlash(raw))
	case isRegistryPath(r):
		return target{face: faceMirror}, nil
	case r.RequestURI != "*" && !strings.HasPrefix(r.RequestURI, "/"):
		return newTarget(faceForward, r.RequestURI)
	default:
		return target{face: faceNone}, nil
	}
}

func newTarget(f face, raw string) (target, error) {
	t := target{face: f, raw: raw}
	if strings.Contains(raw, "#") {
		return t, fmt.Errorf("%w: %q has a fragment", content.ErrURL, raw)
	}
	u, err := url.ParseRequestURI(raw)
	if err != nil {
		return t, fmt.Errorf("%w: %w", content.ErrURL, err)
	}
	t.url = keepBytes(u, raw)
	return t, nil
}

// restoreSlash undoes what clients and proxies do that clean paths: it makes
// https:/host/path https://host/path.
func restoreSlash(raw string) string {
	scheme, rest, ok := strings.Cut(raw, ":/")
	if !ok || strings.HasPrefix(rest, "/") || !isWebScheme(scheme) {
		return raw
	}
	return scheme + "://" + rest
}

func isWebScheme(s string) bool {
	return strings.EqualFold(s, "http") || strings.EqualFold(s, "https")
}

// keepBytes makes a transport write the path as it stands in raw where net/url
// would encode it anew, as it does with "|" or a quote.
func keepBytes(u *url.URL, raw string) *url.URL {
	_, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return u
	}
	path := ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		path, _, _ = strings.Cut(rest[i:], "?")
	}
	// An Opaque with two slashes would be read as an authority.
	if path != "" && path != u.EscapedPath() && !strings.HasPrefix(path, "//") {
		u.Opaque = path
	}
	return u
}

// hostPort returns the host and port that a canonical URL names.
func hostPort(canonical string) string {
	scheme, rest, _ := strings.Cut(canonical, "://")
	host, _, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		return host
	}
	if scheme == "https" {
		return net.JoinHostPort(strings.Trim(host, "[]"), "443")
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), "80")
}

// tunnelAddr checks the target of a CONNECT (RFC 9112 section 3.2.3) and
// returns it with its host in canonical form.
func tunnelAddr(authority string) (string, error) {
	host, port, err := net.SplitHostPort(authority)
	n, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil || host == "" || n == 0 || strings.ContainsAny(host, "/?#@\\") {
		return "", fmt.Errorf("%w: CONNECT to %q: want host:port", content.ErrURL, authority)
	}
	task, err := content.NewTask("http://"+net.JoinHostPort(host, port)+"/", content.Filter{})
	if err != nil {
		return "", fmt.Errorf("CONNECT to %q: %w", authority, err)
	}
	return hostPort(task.URL), nil
}
