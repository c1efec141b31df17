package read

import "github.com/p2pnode/p2pnode/internal/content"

// Ahead is how far, in bytes, a reader has blocks on their way before it needs
// them: it is rounded up to whole stripes.
const Ahead = 8 << 20

// Plan returns the part of want that is to be asked for next by a reader who is
// at byte pos and has asked for everything before byte asked: from asked on to
// the end of the stripe that is Ahead bytes further than pos, or to the end of
// want. It is empty where enough is on its way, so that requests are whole
// stripes. Pure.
func Plan(want content.Range, pos, asked int64, l content.Layout) content.Range {
	from := max(asked, want.Off)
	if from >= want.End() || asked > pos && asked-pos > Ahead-l.Stripe() {
		return content.Range{}
	}
	to := l.StripeRange(l.StripeOf(min(pos+Ahead, max(0, l.Size-1)))).End()
	return content.Span(from, min(to, want.End()))
}
