package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says what the admin API shows. A nil field leaves its endpoint out.
type Config struct {
	// Status, Tasks, Seeds and Peers return what /v1/status, /v1/tasks, /v1/seeds
	// and /v1/peers show: any value that encoding/json can marshal. They are called once a
	// request, concurrently, and must not block.
	Status, Tasks, Seeds, Peers func() any
	// Ready returns nil once the node can serve reads, else the reason why it
	// cannot, for /readyz. A node without it is always ready.
	Ready func() error
	// Transfers serves POST /v1/prefetch, /v1/import and /v1/unpin.
	Transfers Transfers
	// Orders serves POST /v1/orders.
	Orders Orders
	// Limits serves POST /v1/limits.
	Limits Limits
	// Revoke serves POST /v1/revocations.
	Revoke Revoke
	// Gatherer is what /metrics shows.
	Gatherer prometheus.Gatherer
	// Extra adds handlers by their http.ServeMux pattern, a path without a
	// method. A pattern that is taken makes New panic.
	Extra map[string]http.Handler
	// Hosts are names, without ports, that the Host header may have besides
	// loopback and the address that the client dialled: the host part of the
	// listen address where that is a name.
	Hosts []string
	// bodyTimeout is for tests; 0 is the real one.
	bodyTimeout time.Duration
	// Logger is for requests that fail on our side; nil is slog.Default().
	Logger *slog.Logger
}

// api is one built admin API.
type api struct {
	logger *slog.Logger
	hosts  []string
	mux    *http.ServeMux
	paths  []string
	// posts are the paths that are for POST, and the type of its body.
	posts map[string]string
	// transfers brings files in; the channels have an element for each that runs.
	transfers           Transfers
	prefetches, imports chan struct{}
	bodyTimeout         time.Duration
}

// New builds the handler. It starts nothing.
func New(cfg Config) http.Handler {
	a := &api{
		logger: cfg.Logger, mux: http.NewServeMux(), posts: map[string]string{}, transfers: cfg.Transfers,
		prefetches: make(chan struct{}, maxPrefetches), imports: make(chan struct{}, maxImports),
		bodyTimeout: cmp.Or(cfg.bodyTimeout, bodyTimeout),
	}
	if a.logger == nil {
		a.logger = slog.Default()
	}
	for _, h := range cfg.Hosts {
		a.hosts = append(a.hosts, strings.ToLower(h))
	}
	a.handle("/healthz", http.HandlerFunc(healthz))
	a.handle("/readyz", readyz(cfg.Ready))
	for path, value := range map[string]func() any{
		"/v1/status": cfg.Status, "/v1/tasks": cfg.Tasks, "/v1/seeds": cfg.Seeds, "/v1/peers": cfg.Peers,
	} {
		if value != nil {
			a.handle(path, a.show(value))
		}
	}
	if cfg.Transfers != nil {
		a.post("/v1/prefetch", "application/json", a.prefetch)
		a.post("/v1/import", "application/octet-stream", a.importFile)
		a.post("/v1/unpin", "application/json", a.unpin)
	}
	if cfg.Orders != nil {
		a.post("/v1/orders", "application/json", a.order(cfg.Orders))
	}
	if cfg.Limits != nil {
		a.post("/v1/limits", "application/json", a.limits(cfg.Limits))
	}
	if cfg.Revoke != nil {
		a.post("/v1/revocations", "application/json", a.revoke(cfg.Revoke))
	}
	if cfg.Gatherer != nil {
		a.handle("/metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
			ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),
		}))
	}
	// No cmdline, as a join secret may be among the arguments: Index lists it, and its link answers 404.
	a.handle("/debug/pprof/", http.HandlerFunc(pprof.Index))
	a.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	a.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	a.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	for _, pattern := range slices.Sorted(maps.Keys(cfg.Extra)) {
		a.handle(pattern, cfg.Extra[pattern])
	}
	if _, taken := cfg.Extra["/"]; !taken {
		a.mux.HandleFunc("/", a.index)
		a.mux.Handle(dashboardDir, dashboardFiles())
	}
	slices.Sort(a.paths)
	return a.guard(a.mux)
}

func (a *api) handle(path string, h http.Handler) {
	a.mux.Handle(path, h)
	a.paths = append(a.paths, path)
}

// post adds a handler for POST alone, whose body is of one media type.
func (a *api) post(path, mediaType string, h http.HandlerFunc) {
	a.posts[path] = mediaType
	a.mux.Handle(path, h)
	a.paths = append(a.paths, path+" (POST)")
}

// index lists what there is, or is the dashboard for who prefers HTML, and
// answers every path that nothing else takes.
func (a *api) index(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no such page: %s; / lists what there is", r.URL.Path))
		return
	}
	w.Header().Set("Vary", "Accept")
	if wantsHTML(r) {
		dashboard(w)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	var page strings.Builder
	page.WriteString("p2pnode admin\n\n")
	for _, path := range a.paths {
		page.WriteString(path + "\n")
	}
	_, _ = io.WriteString(w, page.String()) // an error means that the client has gone
}

// healthz answers 200 as long as the process serves at all.
func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n") // an error means that the client has gone
}

// readiness is the body of /readyz.
type readiness struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

func readyz(ready func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		status, answer := http.StatusOK, readiness{Ready: true}
		if ready != nil {
			if err := ready(); err != nil {
				status, answer = http.StatusServiceUnavailable, readiness{Reason: err.Error()}
			}
		}
		_ = writeJSON(w, status, answer) // a readiness can be marshalled
	}
}

// show answers with a value as JSON. The value is marshalled before the status
// is written, so that a failure is a 500 and never half an answer.
func (a *api) show(value func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := writeJSON(w, http.StatusOK, value()); err != nil {
			a.logger.Warn("admin value cannot be shown", "path", r.URL.Path, "err", err)
			writeError(w, http.StatusInternalServerError, "the value cannot be written as JSON; see the log")
		}
	}
}

// writeJSON fails, with nothing written, only where v cannot be marshalled.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("marshal %T: %w", v, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // an error means that the client has gone
	return nil
}

// problem is the body of every error.
type problem struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, status int, text string) {
	_ = writeJSON(w, status, problem{text}) // a string always marshals
}
