module interop/build2019

go 1.25.0

tool golang.org/x/build/cmd/buildlet

require golang.org/x/build v0.0.0-20190314133821-5284462c4bec

require (
	cloud.google.com/go v0.31.0 // indirect
	github.com/golang/protobuf v1.2.0 // indirect
	github.com/tarm/serial v0.0.0-20180830185346-98f6abe2eb07 // indirect
	golang.org/x/net v0.0.0-20181029044818-c44066c5c816 // indirect
	golang.org/x/oauth2 v0.0.0-20181017192945-9dcd33a902f4 // indirect
	golang.org/x/sys v0.0.0-20181029174526-d69651ed3497 // indirect
	google.golang.org/api v0.0.0-20181030000543-1d582fd0359e // indirect
	google.golang.org/appengine v1.2.0 // indirect
	gopkg.in/inf.v0 v0.9.1 // indirect
	interop/golden v0.0.0
)

replace interop/golden => ../golden
