package heartbeat

import (
	"math"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/heartbeat/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

func beatToProto(b Beat) *pb.Beat {
	return &pb.Beat{
		Session:  b.Session,
		Seq:      b.Seq,
		Addrs:    frame.AppendAddrs(nil, b.Addrs),
		Site:     b.Site,
		Seed:     b.Seed,
		Capacity: frame.Uint64(b.Capacity),
		Free:     frame.Uint64(b.Free),
		Load: &pb.Load{
			Uploads:      uint32(min(max(b.Load.Uploads, 0), math.MaxInt32)),
			UploadRate:   frame.Uint64(b.Load.UploadRate),
			DownloadRate: frame.Uint64(b.Load.DownloadRate),
			CpuPermille:  permille(b.Load.CPU),
		},
		Reachability: pb.Reachability(b.Reachability),
		Version:      b.Version,
		Goodbye:      b.Goodbye,
		Epoch:        b.Epoch,
		RevokedSum:   b.RevokedSum,
		Revoked:      b.Revoked,
		Prefixes:     b.Prefixes.Bytes(),
	}
}

// permille rounds a fraction; what is no number is 0.
func permille(f float64) uint32 {
	if !(f > 0) {
		return 0
	}
	return uint32(math.Round(min(f, 1) * 1000))
}

func beatFromProto(m *pb.Beat) (Beat, error) {
	b := Beat{
		Session: m.GetSession(),
		Seq:     m.GetSeq(),
		Site:    m.GetSite(),
		Seed:    m.GetSeed(),
		Version: m.GetVersion(),
		Goodbye: m.GetGoodbye(),
		Epoch:   m.GetEpoch(),

		RevokedSum: m.GetRevokedSum(),
		Revoked:    m.GetRevoked(),
	}
	load := m.GetLoad()
	switch {
	case b.Session == 0 || b.Seq == 0:
		return Beat{}, frame.Malformed("beat %d of session %d: both start at 1", b.Seq, b.Session)
	case len(b.Site) > frame.MaxSite:
		return Beat{}, frame.Malformed("site of %d bytes: at most %d", len(b.Site), frame.MaxSite)
	case len(b.Version) > maxVersion:
		return Beat{}, frame.Malformed("version of %d bytes: at most %d", len(b.Version), maxVersion)
	case load.GetUploads() > math.MaxInt32 || load.GetCpuPermille() > 1000:
		return Beat{}, frame.Malformed("load of %d uploads, %d/1000 CPU", load.GetUploads(), load.GetCpuPermille())
	}
	b.Load.Uploads = int(load.GetUploads())
	b.Load.CPU = float64(load.GetCpuPermille()) / 1000
	if r := m.GetReachability(); r == pb.Reachability_PUBLIC || r == pb.Reachability_PRIVATE || r == pb.Reachability_RELAYED {
		b.Reachability = Reachability(r)
	}
	var ok bool
	if b.Prefixes, ok = content.PrefixesFromBytes(m.GetPrefixes()); !ok {
		return Beat{}, frame.Malformed("prefixes of %d bytes", len(m.GetPrefixes()))
	}
	var err error
	if b.Addrs, err = frame.Addrs(m.GetAddrs()); err != nil {
		return Beat{}, err
	}
	if err := checkRevoked(b.Revoked, maxBeatRevoked, maxBeatRevocation); err != nil {
		return Beat{}, err
	}
	for _, f := range []struct {
		name string
		from uint64
		to   *int64
	}{
		{"capacity", m.GetCapacity(), &b.Capacity},
		{"free", m.GetFree(), &b.Free},
		{"upload_rate", load.GetUploadRate(), &b.Load.UploadRate},
		{"download_rate", load.GetDownloadRate(), &b.Load.DownloadRate},
	} {
		if *f.to, err = frame.Int64(f.name, f.from); err != nil {
			return Beat{}, err
		}
	}
	return b, nil
}

func ackToProto(a Ack) *pb.Ack {
	return &pb.Ack{
		Seq: a.Seq, Epoch: a.Cursor.Epoch, MapSeq: a.Cursor.Seq, MapHash: a.MapHash[:], Revoked: a.Revoked, RevokedSum: a.RevokedSum,
		TimeUs: timeToProto(a.Time),
	}
}

// timeToProto returns microseconds; 0 for the zero time and what is before 1970.
func timeToProto(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return frame.Uint64(t.UnixMicro())
}

func ackFromProto(m *pb.Ack) (Ack, error) {
	a := Ack{Seq: m.GetSeq(), Cursor: Cursor{m.GetEpoch(), m.GetMapSeq()}, Revoked: m.GetRevoked(), RevokedSum: m.GetRevokedSum()}
	if copy(a.MapHash[:], m.GetMapHash()) != len(m.GetMapHash()) || len(m.GetMapHash()) != len(a.MapHash) {
		return Ack{}, frame.Malformed("map hash of %d bytes: want %d", len(m.GetMapHash()), len(a.MapHash))
	}
	us, err := frame.Int64("time_us", m.GetTimeUs())
	if err != nil {
		return Ack{}, err
	}
	if us > 0 {
		a.Time = time.UnixMicro(us)
	}
	return a, checkRevoked(a.Revoked, maxRevoked, maxRevocation)
}

func checkRevoked(list [][]byte, most, bytes int) error {
	if len(list) > most {
		return frame.Malformed("%d revocations: at most %d", len(list), most)
	}
	for _, r := range list {
		if len(r) == 0 || len(r) > bytes {
			return frame.Malformed("revocation of %d bytes: 1 to %d", len(r), bytes)
		}
	}
	return nil
}
