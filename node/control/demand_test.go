package control

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/report"
)

func TestDemandIsCountedOnce(t *testing.T) {
	var d demand
	task := content.TaskID{1}
	d.add(task, "b", 5)
	d.add(task, "a", 7)
	d.add(task, "b", 1)
	want := []uint64{report.Fingerprint("a"), report.Fingerprint("b")}
	slices.Sort(want)
	if got := d.take(); len(got) != 1 || got[0].Task != task || got[0].Bytes != 13 || !slices.Equal(got[0].Readers, want) {
		t.Errorf("took %+v", got)
	}
	if got := d.take(); len(got) != 0 {
		t.Errorf("took %+v again", got)
	}
}

func TestDemandIsBounded(t *testing.T) {
	var d demand
	for i := range maxRead + 5 {
		d.add(content.TaskID{byte(i), byte(i >> 8)}, "a", 1)
	}
	for i := range maxReaders + 5 {
		d.add(content.TaskID{}, peer.ID([]byte{byte(i), byte(i >> 8)}), 1)
	}
	got := d.take()
	if len(got) != maxRead {
		t.Errorf("%d tasks counted", len(got))
	}
	first := got[slices.IndexFunc(got, func(d report.Demand) bool { return d.Task == content.TaskID{} })]
	if len(first.Readers) != maxReaders || first.Bytes != maxReaders+6 {
		t.Errorf("%d readers, %d bytes", len(first.Readers), first.Bytes)
	}
}
