package origin

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/origin/registry"
)

// roundTripAnonymous is roundTrip with, for a digest task that is asked for
// without credentials, the anonymous token that its registry wants: most want
// one even for public images. The token's server is asked under the same policy
// and limits, and charged to the same ticket. Where it gives none, the answer is
// the registry's 401, without its body.
func (c *Client) roundTripAnonymous(ctx context.Context, method string, u *url.URL, header http.Header, r Request, t *ticket) (*http.Response, *pass, error) {
	if r.Digest == "" || header.Get("Authorization") != "" {
		return c.roundTrip(ctx, method, u, header, t)
	}
	header = header.Clone()
	kept, ok := c.tokens.Authorization(u)
	if ok {
		header.Set("Authorization", kept)
	}
	resp, pass, err := c.roundTrip(ctx, method, u, header, t)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, pass, err
	}
	challenge, ok := registry.ParseChallenge(resp.Header)
	if !ok {
		return resp, pass, nil
	}
	// Before the token is asked for: its server may be the same origin, and all
	// passes taken by those who wait for one.
	resp.Body.Close()
	resp.Body = http.NoBody
	pass.leave(nil)
	token, ok := c.tokens.Authorization(u)
	if !ok || token == kept { // else another request has got it meanwhile
		token, err = c.fetchToken(ctx, u, challenge, t)
	}
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if err != nil {
		c.cfg.Logger.Debug("no anonymous token", "url", bareURL(u), "err", err)
		return resp, pass, nil
	}
	header.Set("Authorization", token)
	return c.roundTrip(ctx, method, u, header, t)
}

func (c *Client) fetchToken(ctx context.Context, u *url.URL, challenge registry.Challenge, t *ticket) (string, error) {
	return c.tokens.Fetch(ctx, u, challenge, func(ctx context.Context, realm *url.URL) (*http.Response, error) {
		resp, pass, err := c.roundTrip(ctx, http.MethodGet, realm, c.header(realm, nil, content.Range{}), t)
		if err != nil {
			return nil, err
		}
		resp.Body = passBody{resp.Body, pass}
		return resp, nil
	})
}

// passBody ends a pass with the body that was let through.
type passBody struct {
	io.ReadCloser
	pass *pass
}

// Close implements io.Closer.
func (b passBody) Close() error {
	b.pass.leave(nil)
	return b.ReadCloser.Close()
}
