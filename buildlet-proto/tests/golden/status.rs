// Go's buildlet client and cmd/buildlet, both of November 2021.
&[
    ("client", b"GET /status HTTP/1.1\r\nHost: 127.0.0.1:5937\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"),
    ("machine", b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Wed, 25 Nov 2026 14:03:05 GMT\r\nContent-Length: 14\r\n\r\n{\"Version\":25}"),
]
