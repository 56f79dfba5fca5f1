// cmd/buildlet of September 2026 and the Dialer of Go's revdial/v2: the pick-up.
&[
    ("machine", b"GET /revdial?revdial.dialer=2746d6212483a774ad1cebd09793bf19 HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n\r\n"),
    ("coordinator", b"HTTP/0.0 101 Switching Protocols\r\n\r\nGET /status HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"),
    ("machine", b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Wed, 25 Nov 2026 14:03:04 GMT\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"Version\":29}"),
]
