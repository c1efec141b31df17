package origin

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests  *prometheus.CounterVec
	bodyBytes prometheus.Counter
	firstByte prometheus.Histogram
	refused   *prometheus.CounterVec
	retries   *prometheus.CounterVec
	broken    prometheus.Counter
	inFlight  prometheus.Gauge
	queued    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_origin_requests_total",
			Help: "Reads and metadata queries of origins, by outcome.",
		}, []string{"method", "outcome"}),
		bodyBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_origin_body_bytes_total",
			Help: "Bytes of content read from origins.",
		}),
		firstByte: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "p2pnode_origin_first_byte_seconds",
			Help:    "From sending a request to the header of its answer, dial included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_origin_refused_total",
			Help: "Requests that were not sent, by the bound that they met.",
		}, []string{"reason"}),
		retries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_origin_retries_total",
			Help: "Requests after a failed one: for the same, or for the rest of a body that broke.",
		}, []string{"kind"}),
		broken: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_origin_breaker_openings_total",
			Help: "Times that an origin was found out of reach.",
		}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_origin_in_flight_requests",
			Help: "Requests that were sent and whose answers are not read to the end.",
		}),
		queued: f.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_origin_queued_requests",
			Help: "Requests that wait until others to the same origin end.",
		}),
	}
}

// showBreakers makes the gauge of open breakers.
func showBreakers(reg prometheus.Registerer, count func() float64) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "p2pnode_origin_breakers_open",
		Help: "Origins that count as out of reach now.",
	}, count)
}

// outcome is the label of an error's kind.
func outcome(ctx context.Context, err error) string {
	var status *StatusError
	switch refused := (*BudgetError)(nil); {
	case err == nil:
		return "ok"
	case errors.As(err, &refused):
		return "refused"
	case errors.As(err, &status):
		return "status"
	case errors.Is(err, ErrChanged):
		return "changed"
	case errors.Is(err, ErrUncacheable):
		return "uncacheable"
	case errors.Is(err, ErrForbiddenTarget):
		return "forbidden"
	case ctx.Err() != nil:
		return "canceled"
	default:
		return "unreachable"
	}
}

// observe counts and logs how a call ended. The query, which may hold a
// signature, is not logged.
func (c *Client) observe(ctx context.Context, method string, r Request, started time.Time, err error) {
	o := outcome(ctx, err)
	c.metrics.requests.WithLabelValues(method, o).Inc()
	var bare string
	if u, perr := url.Parse(r.URL); perr == nil {
		bare = bareURL(u)
	}
	c.cfg.Logger.DebugContext(ctx, "origin asked", "method", method, "url", bare, "off", r.Range.Off,
		"len", r.Range.Len, "outcome", o, "seconds", c.cfg.Now().Sub(started).Seconds(), "err", err)
}
