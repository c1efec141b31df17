package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/p2pnode/p2pnode/node"
	"github.com/spf13/cobra"
)

// getOptions are the flags of get.
type getOptions struct {
	out, byteRange, digest string
	proxy, dataDir         string
	proxyCA, cert, key     string
	supernodes, bootstrap  []string
	resume                 bool
	logLevel               level
	logFormat              format
}

func (a *app) getCmd() *cobra.Command {
	o := getOptions{logLevel: level{slog.LevelWarn}, logFormat: "text"}
	command := &cobra.Command{
		Use:   "get URL",
		Short: "Download a file through the swarm",
		Long: `Download a file through the swarm. A running daemon is used where there is one;
else, and unless one was named, a node is made for this one read, with its data
beside the output until it ends. The bytes are collected in FILE.part, which the next get of the same URL
continues, and become FILE when all are there.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("get wants one URL, not %d: see %s --help", len(args), cmd.CommandPath())
			}
			return nil
		},
	}
	f := command.Flags()
	f.StringVarP(&o.out, "output", "o", "", "`file` to write, - for stdout (default the last part of the URL's path)")
	f.StringVar(&o.byteRange, "range", "", "bytes `A-B` alone, both included; A- and -N too")
	f.StringVar(&o.digest, "digest", "", "what the file must hash to, as `sha256:HEX` or sha512:HEX")
	toggleVar(f, &o.resume, "resume", true, "continue FILE.part")
	f.StringVar(&o.proxy, "proxy", "", "`host:port` of a daemon's proxy, https://host:port where it speaks TLS (default that of the daemon of --data-dir)")
	f.StringVar(&o.proxyCA, "proxy-ca", "", "PEM `file`: who issued the certificate of a --proxy that speaks TLS, if not known to the system")
	f.StringVar(&o.cert, "client-cert", "", "PEM `file` to show to a proxy that wants a certificate")
	f.StringVar(&o.key, "client-key", "", "PEM `file`: its key")
	f.StringVar(&o.dataDir, "data-dir", a.dataDir("p2pnode"), "data `directory` of a running daemon")
	f.StringArrayVar(&o.supernodes, "supernode", nil, "without a daemon: `multiaddr/p2p/ID` of a supernode; repeatable")
	f.StringArrayVar(&o.bootstrap, "bootstrap", nil, "without a daemon: `multiaddr/p2p/ID` of a peer; repeatable")
	f.Var(&o.logLevel, "log-level", "without a daemon: debug, info, warn or error")
	f.Var(&o.logFormat, "log-format", "without a daemon: how logs are written to stderr")
	markLocal(command, "output", "range", "digest", "resume", "proxy-ca", "client-cert", "client-key")
	command.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := a.fill(cmd)
		if err != nil {
			return err
		}
		d, err := a.newDownload(args[0], o)
		if err != nil {
			return err
		}
		if err := a.get(cmd.Context(), d, o, set.from["data-dir"] != ""); err != nil {
			return interrupted(cmd.Context(), d, set.explain(err))
		}
		return nil
	}
	return command
}

// newDownload checks the arguments of get.
func (a *app) newDownload(rawURL string, o getOptions) (*download, error) {
	raw, u, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	d := &download{url: raw, out: o.out, resume: o.resume, progress: a.progress}
	if d.want, err = parseRange(o.byteRange); err != nil {
		return nil, err
	}
	if d.digest, err = parseDigest(o.digest); err != nil {
		return nil, err
	}
	if d.tls, err = o.tls(); err != nil {
		return nil, err
	}
	if d.digest != "" && o.byteRange != "" {
		return nil, usagef("--digest is of the whole file: leave out --digest or --range")
	}
	if d.out == "" {
		d.out = path.Base(u.Path)
		// "-" would be stdout, and what is no name here might be anywhere.
		if u.Path == "" || d.out == "-" || d.out == "." || d.out != filepath.Base(d.out) || !filepath.IsLocal(d.out) || strings.ContainsFunc(d.out, unicode.IsControl) {
			return nil, usagef("URL %s names no file: name one with --output FILE", node.Shown(rawURL))
		}
	}
	if d.out == "-" {
		d.stdout = a.stdout
	}
	return d, nil
}

// cleanURL returns a URL byte for byte, but for its fragment, which is not
// sent, and for blanks and control characters, which cannot be.
func cleanURL(raw string) string {
	raw, _, _ = strings.Cut(raw, "#")
	var b strings.Builder
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c == 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// parseURL checks the URL of a file, and returns it clean too.
func parseURL(raw string) (string, *url.URL, error) {
	clean := cleanURL(raw)
	u, err := url.Parse(clean)
	switch {
	case err != nil && !strings.Contains(raw, "@"): // see node.Shown
		return "", nil, usagef("%w: write a URL like https://host/path", err)
	case err == nil && u.User != nil:
		return "", nil, usagef("URL %s holds a user name: leave it out, the swarm carries no credentials", node.Shown(raw))
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", nil, usagef("URL %s: write one like https://host/path", node.Shown(raw))
	}
	return clean, u, nil
}

// get runs a download through the gateway of the daemon that was named, by its
// port or by its directory, of the one that runs, or of a node made for it.
func (a *app) get(ctx context.Context, d *download, o getOptions, named bool) error {
	// A variable that a daemon shares may ask for a free port.
	if o.proxy != "" && !strings.HasSuffix(o.proxy, ":0") {
		base, err := proxyURL(o.proxy)
		if err != nil {
			return err
		}
		return d.run(ctx, base)
	}
	if o.dataDir == "" && !named { // no home: no daemon of this user either
		return a.getAlone(ctx, d, o)
	}
	daemon, err := findDaemon(ctx, o.dataDir)
	switch {
	case err == nil && daemon.Proxy == "":
		return fmt.Errorf("data directory %s is a supernode's, which has no proxy: name a daemon's", o.dataDir)
	case err == nil:
		if daemon.ProxyCert != "" {
			d.tls = pinned(d.tls, daemon.ProxyCert)
		}
		return d.run(ctx, daemon.Proxy)
	case errors.Is(err, errNoDaemon) && !named:
		return a.getAlone(ctx, d, o)
	}
	return err
}

// proxyURL turns host:port, or a URL of it, into the URL of a gateway.
func proxyURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return "", usagef("proxy %s: write host:port, like %s, or https://host:port", node.Shown(s), node.DefaultProxy)
	}
	return u.Scheme + "://" + u.Host, nil
}

// getAlone runs a download through a node of its own, which keeps its data in
// a directory beside the output and takes no ports that are known.
func (a *app) getAlone(ctx context.Context, d *download, o getOptions) (err error) {
	fmt.Fprintln(a.stderr, "p2pnode: no daemon runs here, reading alone")
	parent := filepath.Dir(resolve(d.out))
	if info, err := os.Stat(d.out); d.stdout != nil || err == nil && !info.Mode().IsRegular() {
		parent = "" // beside a device is no place for data
	}
	dir, err := os.MkdirTemp(parent, ".p2pnode-get-")
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	defer func() {
		if rmErr := os.RemoveAll(dir); err == nil && rmErr != nil {
			err = fmt.Errorf("remove the data directory: %w", rmErr)
		}
	}()
	r, err := a.newNode(node.Config{
		DataDir:    dir,
		Listen:     []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
		Supernodes: o.supernodes, Bootstrap: o.bootstrap,
		Proxy: "127.0.0.1:0", Admin: "127.0.0.1:0", OriginFallback: true,
		Seed:    len(o.supernodes) == 0, // nobody else could be elected
		Version: buildVersion(), Logger: a.logger(o.logLevel, o.logFormat),
	})
	if err != nil {
		return err
	}
	nodeCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(nodeCtx) }()
	defer func() {
		stop()
		select {
		case e := <-done:
			_ = e // what it came to does not change what was got
		case <-time.After(a.stopLimit):
		}
	}()
	select {
	case err := <-done:
		done <- nil // for the deferred wait
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = errors.New("the node ended by itself: see the log above")
		}
		return err
	case <-r.Ready():
	}
	return d.run(ctx, r.Info().Proxy)
}

// interrupted replaces the error of a download that a signal ended, and says
// what is left to continue.
func interrupted(ctx context.Context, d *download, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if n := d.kept(); n > 0 {
		return fmt.Errorf("get %s: %w with %d bytes in %s: run it again to continue", d.url, errInterrupted, n, d.partName())
	}
	return fmt.Errorf("get %s: %w", d.url, errInterrupted)
}

// errInterrupted is context.Canceled as the user knows it.
var errInterrupted = &interruption{}

type interruption struct{}

func (*interruption) Error() string { return "interrupted" }
func (*interruption) Unwrap() error { return context.Canceled }

// newClient returns a client for one gateway: no proxy in front of it, bodies
// as they are, and no redirect that leaves it.
func newClient(config *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true, TLSClientConfig: config},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) >= 10 {
				return errors.New("more than ten redirects")
			}
			if req.URL.Host != via[0].URL.Host {
				return fmt.Errorf("redirected out of the gateway to %s: get that URL", req.URL)
			}
			return nil
		},
	}
}
