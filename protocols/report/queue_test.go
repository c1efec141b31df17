package report

import (
	"reflect"
	"testing"
)

func (q *queue) drain() (out []item) {
	for {
		it, ok := q.oldest()
		if !ok {
			return out
		}
		out = append(out, it)
		q.pop()
	}
}

func TestQueueCoalesces(t *testing.T) {
	held := func(n int, size int64) item {
		return item{news: isHeld, held: Held{Task: task(n), Size: size}}
	}
	drop := func(n int) item { return item{news: isDropped, held: Held{Task: task(n)}} }
	read := func(it item, bytes int64, readers ...uint64) item {
		it.demand = Demand{Bytes: bytes, Readers: readers}
		return it
	}
	only := func(n int) item { return item{held: Held{Task: task(n)}} }
	for _, c := range []struct {
		name     string
		in, want []item
	}{
		{"keeps order", []item{held(1, 1), held(2, 1)}, []item{held(1, 1), held(2, 1)}},
		{"last wins", []item{held(1, 5), held(2, 0), held(1, 7)}, []item{held(1, 7), held(2, 0)}},
		{"dropped after held", []item{held(1, 5), drop(1)}, []item{drop(1)}},
		{"held after dropped", []item{held(1, 5), drop(1), held(1, 2)}, []item{held(1, 2)}},
		{"demand adds up", []item{read(only(1), 5, 2, 4), read(only(1), 6, 1, 4)}, []item{read(only(1), 11, 1, 2, 4)}},
		{"demand after held", []item{held(1, 9), read(only(1), 5, 2)}, []item{read(held(1, 9), 5, 2)}},
		{"held after demand", []item{read(only(1), 5, 2), held(1, 9)}, []item{read(held(1, 9), 5, 2)}},
		{"dropped after demand", []item{read(only(1), 5, 2), drop(1)}, []item{read(drop(1), 5, 2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := newQueue()
			for _, it := range c.in {
				if q.put(it) {
					t.Error("lost an item")
				}
			}
			got := q.drain()
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestReadersAreBounded(t *testing.T) {
	q := newQueue()
	for n := range uint64(3) {
		var readers []uint64
		for i := range uint64(200) {
			readers = append(readers, 1000*n+i)
		}
		q.put(item{held: Held{Task: task(1)}, demand: Demand{Bytes: 1, Readers: readers}})
	}
	it, _ := q.oldest()
	if _, err := demandFromProto(demandToProto(Demand{Task: task(1), Readers: it.demand.Readers})); err != nil || len(it.demand.Readers) != maxReaders {
		t.Errorf("%d readers wait: %v", len(it.demand.Readers), err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	lost := 0
	for n := range MaxQueue + 10 {
		if q.put(item{held: Held{Task: task(n)}}) {
			lost++
		}
	}
	if q.put(item{held: Held{Task: task(MaxQueue)}}) {
		t.Error("a task that waits already cost another its place")
	}
	got := q.drain()
	if lost != 10 || len(got) != MaxQueue || got[0].held.Task != task(10) || got[len(got)-1].held.Task != task(MaxQueue+9) {
		t.Errorf("lost %d, kept %d", lost, len(got))
	}
	if q.len() != 0 || len(q.by) != 0 {
		t.Error("something is left")
	}
}
