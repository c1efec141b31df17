package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Errors that callers branch on; those returned wrap them.
var (
	// ErrChanged: the origin's file is of another generation than expected.
	// The error is a *ChangedError, which holds what it is now.
	ErrChanged = errors.New("the origin's file has changed")
	// ErrUncacheable: the answer was a success, but must or can not be shared
	// by a cache; the text names the reason.
	ErrUncacheable = errors.New("the origin's answer cannot be cached")
	// ErrForbiddenTarget: the policy does not let this client go there.
	ErrForbiddenTarget = errors.New("target not allowed")
	// ErrSelf: it is a port of this node's own. It comes with ErrForbiddenTarget.
	ErrSelf = errors.New("this node itself")
	// ErrUnreachable: no answer, or no more of it: the name did not resolve,
	// the connection or TLS failed, was reset, or nothing came in time.
	ErrUnreachable = errors.New("origin unreachable")
)

// Reason says which bound kept a request from being sent.
type Reason string

// Reasons, as in the metrics.
const (
	ReasonBlock       Reason = "block"       // the block failed too often: Limits.BlockFailures
	ReasonOrigin      Reason = "origin"      // its origin did: Limits.OriginFailures
	ReasonRetryAfter  Reason = "retry_after" // the origin asked to be left alone
	ReasonUnreachable Reason = "unreachable" // no connection came about: Limits.BreakAfter
)

// BudgetError says that the origin was not asked, because it failed too often
// or wants to be left alone. It wraps the last failure, so that errors.As and
// errors.Is find what the origin last said.
type BudgetError struct {
	Reason Reason
	// RetryAfter is the time from now before which the origin is not asked.
	RetryAfter time.Duration
	// Last is the failure that spent the budget.
	Last error
}

// Error names the reason, the wait and the last failure.
func (e *BudgetError) Error() string {
	return fmt.Sprintf("not asked for another %v (%s): %v", e.RetryAfter.Round(time.Millisecond), e.Reason, e.Last)
}

// Unwrap returns the last failure.
func (e *BudgetError) Unwrap() error { return e.Last }

// ChangedError says what the file is now, so that the caller need not ask
// again. errors.Is reports it as ErrChanged.
type ChangedError struct {
	// Expected is the generation that was asked for.
	Expected content.Generation
	// Meta is the metadata of the file as it is now.
	Meta content.Meta
}

// Error names both generations.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%v: expected generation %s, found %s", ErrChanged, e.Expected, e.Meta.Generation)
}

// Unwrap returns ErrChanged.
func (e *ChangedError) Unwrap() error { return ErrChanged }

// StatusError is an origin's answer of 300 and above. Redirects are among
// them, except those that were followed for a digest task.
type StatusError struct {
	Status int
	// Header holds, of the answer's fields, what a face may pass on: Etag,
	// Last-Modified, Content-Range, Location, Retry-After, Www-Authenticate.
	Header http.Header
	// RetryAfter is how long the origin asked to be left alone; 0 if it did
	// not. At most a day.
	RetryAfter time.Duration
	// URL is what was asked, without its query, which may hold a signature.
	URL string
}

// Error names the status and the URL.
func (e *StatusError) Error() string {
	return fmt.Sprintf("origin answered %d %s for %s", e.Status, http.StatusText(e.Status), e.URL)
}

// passedFields are the header fields that a StatusError keeps.
var passedFields = []string{"Etag", "Last-Modified", "Content-Range", "Location", "Retry-After", "Www-Authenticate"}

func newStatusError(resp *http.Response, now time.Time) *StatusError {
	e := &StatusError{
		Status:     resp.StatusCode,
		Header:     make(http.Header),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now),
		URL:        bareURL(resp.Request.URL),
	}
	for _, name := range passedFields {
		if v := resp.Header.Values(name); len(v) > 0 {
			e.Header[name] = v
		}
	}
	return e
}

// retryAfter reads both forms of the field (RFC 9110 section 10.2.3).
func retryAfter(v string, now time.Time) time.Duration {
	const most = 24 * time.Hour
	var d time.Duration
	if s, err := strconv.ParseUint(v, 10, 32); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), most)
}

// bareURL is u without what may be secret: user information, query, fragment.
func bareURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

func uncacheable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUncacheable}, args...)...)
}

// failed classifies an error of the transport for u, which came after the given
// time, with a connection or without.
func failed(ctx context.Context, u *url.URL, err error, connected bool, after time.Duration) error {
	switch {
	case errors.Is(err, ErrForbiddenTarget):
		return fmt.Errorf("ask %s: %w", bareURL(u), err)
	case ctx.Err() != nil && !connected && after >= patience:
		return fmt.Errorf("ask %s: %w in %v: %w", bareURL(u), errConnect, after.Round(time.Millisecond), context.Cause(ctx))
	case ctx.Err() != nil:
		return fmt.Errorf("ask %s: %w", bareURL(u), silent(context.Cause(ctx), after))
	case !connected:
		return fmt.Errorf("ask %s: %w: %w: %w", bareURL(u), ErrUnreachable, errConnect, err)
	default:
		return fmt.Errorf("ask %s: %w: %w", bareURL(u), ErrUnreachable, err)
	}
}
