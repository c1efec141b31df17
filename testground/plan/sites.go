package plan

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// edgeSites makes each instance a site: the parameter nodes of nodes, which
// share its uplink and reach one another beside it. At each site as many nodes
// as early read a file at once; they are demand enough for a seed of the site's
// own. A moment later all the others of all sites read it at once. No read may
// fail, and what comes into a site for those others is at most crossings times
// the file, where without sites it would be their number.
func edgeSites(ctx context.Context, w *World) error {
	perSite, early, crossings := w.P.Int("nodes"), w.P.Int("early"), w.P.Float("crossings")
	if err := w.P.Err(); err != nil {
		return err
	}
	if early < 1 || early >= perSite {
		return fmt.Errorf("parameters early=%d, nodes=%d: some nodes of a site read early, and others later", early, perSite)
	}
	if err := w.startOrigin(ctx, w.files(1)); err != nil {
		return err
	}
	if w.Origin != nil {
		if err := w.Barrier(ctx, "settled"); err != nil {
			return err
		}
		if err := w.calm(ctx, "early"); err != nil {
			return err
		}
		if err := w.Barrier(ctx, "later"); err != nil {
			return err
		}
		return w.finish(ctx, 1)
	}
	stations, err := w.site(ctx, perSite)
	if err != nil {
		return err
	}
	if err := w.Barrier(ctx, "settled"); err != nil {
		return err
	}
	first, err := w.crossed(ctx, stations, stations[:early], "early")
	if err != nil {
		return err
	}
	w.Metric("site_copies_early", first, "copies")
	if err := w.calm(ctx, "early"); err != nil {
		return err
	}
	others, err := w.crossed(ctx, stations, stations[early:], "later")
	if err != nil {
		return err
	}
	w.Metric("site_copies_later", others, "copies")
	if err := w.Barrier(ctx, "later"); err != nil {
		return err
	}
	if err := w.Check("site crossings", others, crossings, "copies"); err != nil {
		return err
	}
	return w.finish(ctx, 1, stations...)
}

// crossed has readers read the file at once, and returns how many copies of it
// came into the site meanwhile, from peers and from the origin.
func (w *World) crossed(ctx context.Context, site, readers []*Station, phase string) (float64, error) {
	before, err := w.cameIn(ctx, site)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := w.readAt(ctx, readers, phase, begun); err != nil {
		return 0, err
	}
	w.Metric("site_completion_"+phase, ms(time.Since(begun)), "ms")
	after, err := w.cameIn(ctx, site)
	return (after - before) / float64(w.Size), err
}

// cameIn is how many bytes have come into the site.
func (w *World) cameIn(ctx context.Context, site []*Station) (float64, error) {
	_, received := w.Link.Crossed()
	in := float64(received)
	for _, s := range site {
		n, err := metric(ctx, s.admin, "p2pnode_origin_body_bytes_total")
		if err != nil {
			return 0, err
		}
		in += n
	}
	return in, nil
}

// site starts the nodes of this instance, and waits until they know all seeds.
func (w *World) site(ctx context.Context, perSite int) ([]*Station, error) {
	stations := make([]*Station, perSite)
	for i := range stations {
		s, err := w.NewStation(ctx, w.Index*perSite+i, "site-"+strconv.Itoa(w.Index))
		if err != nil {
			return nil, err
		}
		w.closes = append(w.closes, func() { _ = s.Stop() })
		stations[i] = s
	}
	seeds := w.Nodes * perSite
	if w.Seeds > 0 {
		seeds = min(seeds, w.Seeds)
	}
	return stations, each(ctx, stations, func(ctx context.Context, s *Station) error {
		if err := s.Start(ctx); err != nil {
			return err
		}
		return s.Settle(ctx, seeds)
	})
}

// readAt has stations read the file at once.
func (w *World) readAt(ctx context.Context, stations []*Station, phase string, begun time.Time) error {
	return each(ctx, stations, func(ctx context.Context, s *Station) error {
		_, err := s.Read(ctx, Reading{Phase: phase, File: w.file(0, w.Size), Began: begun})
		return err
	})
}

// each runs f for all stations at once.
func each(ctx context.Context, stations []*Station, f func(context.Context, *Station) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range stations {
		g.Go(func() error { return f(ctx, s) })
	}
	return g.Wait()
}
