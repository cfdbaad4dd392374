module github.com/pgoutbox/pgoutbox/bench

go 1.26.8

replace github.com/pgoutbox/pgoutbox => ../

require github.com/pgoutbox/pgoutbox v0.0.0

require (
	github.com/ThreeDotsLabs/watermill-sql/v4 v4.0.0 // indirect
	github.com/alecthomas/kong v1.17.0 // indirect
)
