package assignment

import (
	"reflect"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

// Whatever decodes can be encoded, and says the same again.
func FuzzUpdate(f *testing.F) {
	for _, v := range frametest.Read(f) {
		if strings.HasPrefix(v.Name, "update-") {
			f.Add(v.Bytes)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := decode(b)
		if err != nil {
			return
		}
		raw, err := encode(u)
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		again, err := decode(raw)
		if err != nil || !reflect.DeepEqual(u, again) {
			t.Fatalf("err %v, decoded\n%+v\nthen\n%+v", err, u, again)
		}
		u.PoolVersion()
	})
}

func FuzzBatch(f *testing.F) {
	key, id := testKey(f, 1)
	for _, v := range frametest.Read(f) {
		if v.Name == "batch" {
			f.Add(v.Bytes)
		}
	}
	f.Add(batchOf(f, signAt(f, key, 1)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewSubscriber(nil, "", only(id), nil, SubscriberConfig{})
		got, err := s.open(b)
		if err != nil && got != nil {
			t.Fatal("updates beside an error")
		}
		for _, o := range got {
			if o.Signed.Supernode != id {
				t.Fatal("update of somebody else")
			}
		}
	})
}
