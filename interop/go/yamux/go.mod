module interop/yamux

go 1.26.0

require (
	github.com/hashicorp/yamux v0.1.2
	golang.org/x/net v0.62.0
	interop/golden v0.0.0
)

replace interop/golden => ../golden
