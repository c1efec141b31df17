package locate

import "sync/atomic"

// maxOrderWords bounds what is remembered of one task: with up to four seeds
// the orders of 4,096 stripes, with up to 16 those of 512.
const maxOrderWords = 512

// orders remembers in which order the seats of a view come for its stripes, so
// that a stripe is hashed once and not at each look-up: of a task with three
// seeds the hashes are half the cost of one. It is made by the first look-up
// that could use it: a node remembers nothing of what it does not read. Words
// are only ever filled in, with what everybody computes alike.
type orders struct {
	words []atomic.Uint64
	few   [13]atomic.Uint64 // where the words of most files are
}

func newOrders(words int) *orders {
	o := new(orders)
	if words <= len(o.few) {
		o.words = o.few[:words]
	} else {
		o.words = make([]atomic.Uint64, words)
	}
	return o
}

// lane is where the order for one stripe is: the place of each seat in turn, in
// bits bits. It is 0 where nothing is remembered, as two seats cannot both be
// first.
type lane struct {
	word        int
	shift, bits uint
	mask        uint64
}

// lane returns that of a stripe; it reports false where nothing is remembered of
// it: where the size of the file is not known, for a stripe behind its end or
// beyond the bound, and where there are more than 16 seeds.
func (v *view) lane(stripe int64) (lane, bool) {
	if stripe < 0 || stripe >= v.stripes {
		return lane{}, false
	}
	var l lane
	switch n := len(v.seats); {
	case n <= 4:
		l = lane{word: int(stripe / 8), shift: uint(stripe % 8 * 8), bits: 2, mask: 1<<8 - 1}
	case n <= 16:
		l = lane{word: int(stripe), bits: 4, mask: 1<<64 - 1}
	default:
		return lane{}, false
	}
	return l, l.word < maxOrderWords
}

// recall fills in the places of the seats for a stripe as scores, or reports
// false where they are not remembered.
func (v *view) recall(sc *scores, l lane) bool {
	o := v.orders.Load()
	if o == nil {
		return false
	}
	places := o.words[l.word].Load() >> l.shift & l.mask
	if places == 0 {
		return false
	}
	for i := range v.seats {
		sc[i] = -float64(places & (1<<l.bits - 1))
		places >>= l.bits
	}
	return true
}

// remember keeps the order that the scores for a stripe make.
func (v *view) remember(sc *scores, l lane) {
	o := v.orders.Load()
	if o == nil {
		last, _ := v.lane(v.stripes - 1) // the last word, or one beyond the bound
		o = newOrders(min(last.word+1, maxOrderWords))
		if !v.orders.CompareAndSwap(nil, o) {
			o = v.orders.Load()
		}
	}
	var places uint64
	for i := range v.seats {
		var place uint64
		for j := range v.seats {
			if j != i && (sc[j] > sc[i] || sc[j] == sc[i] && v.seats[j].ID < v.seats[i].ID) {
				place++
			}
		}
		places |= place << (l.bits * uint(i))
	}
	o.words[l.word].Or(places << l.shift)
}
