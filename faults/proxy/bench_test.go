package proxy_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// BenchmarkRoundTrip shows what the proxy adds to a small query.
func BenchmarkRoundTrip(b *testing.B) {
	d := startDatabase(b, 1)
	for name, dsn := range map[string]string{"direct": d.direct, "proxied": d.proxied} {
		b.Run(name, func(b *testing.B) {
			conn := connect(b, dsn)
			for b.Loop() {
				roundTrip(b, conn)
			}
		})
		b.Run(name+"-many", func(b *testing.B) {
			conns := make([]*pgx.Conn, 4*runtime.GOMAXPROCS(0))
			for i := range conns {
				conns[i] = connect(b, dsn)
			}
			var next atomic.Int64
			b.SetParallelism(4) // times GOMAXPROCS
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				conn := conns[next.Add(1)-1]
				for pb.Next() {
					roundTrip(b, conn)
				}
			})
		})
	}
}

func roundTrip(b *testing.B, conn *pgx.Conn) {
	var n int
	if err := conn.QueryRow(b.Context(), `SELECT 1`).Scan(&n); err != nil {
		b.Error(err)
	}
}
