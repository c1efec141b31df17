package origin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// blame says whose failure an attempt was, and so what it is charged to.
type blame int

const (
	// blameNobody: it was good, or nothing was learnt.
	blameNobody blame = iota
	// blameRequest: the origin gave an answer that is of no use, to this
	// requester; another URL, generation or credential may get another.
	blameRequest
	// blameBlock: the origin failed to deliver, whoever asks.
	blameBlock
	// blameConnection: nobody was there to ask.
	blameConnection
)

var (
	// errConnect: no connection to the origin came about.
	errConnect = errors.New("cannot connect")
	// errSilent: the reader left while the origin kept silent.
	errSilent = errors.New("no answer so far")
	// errRedirect: redirects led nowhere.
	errRedirect = errors.New("redirects lead nowhere")
)

func blameOf(err error) blame {
	var status *StatusError
	switch refused := (*BudgetError)(nil); {
	case err == nil, errors.As(err, &refused):
		return blameNobody
	case errors.Is(err, errSilent):
		return blameBlock
	case errors.Is(err, errConnect):
		return blameConnection
	case errors.Is(err, errRedirect), errors.Is(err, ErrUncacheable), errors.Is(err, ErrChanged):
		return blameRequest
	case errors.As(err, &status):
		return blameOfStatus(status.Status)
	case errors.Is(err, ErrUnreachable), errors.Is(err, io.ErrUnexpectedEOF):
		return blameBlock
	default: // a forbidden target, a context that ended
		return blameNobody
	}
}

func blameOfStatus(status int) blame {
	switch {
	case status < 400:
		return blameNobody // a redirect is for the client to follow
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooManyRequests:
		return blameBlock
	default:
		return blameRequest
	}
}

// asksToWait returns how long the origin wants to be left alone, 0 where it
// does not say.
func asksToWait(err error) time.Duration {
	var status *StatusError
	if errors.As(err, &status) && (status.Status == http.StatusTooManyRequests || status.Status == http.StatusServiceUnavailable) {
		return status.RetryAfter
	}
	return 0
}

// silent adds to the error of a context, which ended a wait for the origin, that
// the origin was silent for long.
func silent(err error, waited time.Duration) error {
	if waited < patience {
		return err
	}
	return fmt.Errorf("%w for %v: %w", errSilent, waited.Round(time.Millisecond), err)
}
