// cmd/buildlet of March 2019 and the Dialer of Go's first revdial.
&[
    ("machine", b"GET /reverse HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nX-Go-Builder-Hostname: here\r\nX-Go-Builder-Key: 4d8129e2963df29b29cab65e108397d1\r\nX-Go-Builder-Version: 21\r\nX-Go-Host-Type: host-linux-amd64-localdev\r\n\r\n"),
    ("coordinator", b"HTTP/0.0 101 Switching Protocols\r\n\r\nN\x00\x00\x00\x01\x00\x00W\x00\x00\x00\x01\x007GET /status HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"),
    ("machine", b"W\x00\x00\x00\x01\x00\x9cHTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Wed, 25 Nov 2026 14:03:04 GMT\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"Version\":21}C\x00\x00\x00\x01\x00\x00"),
    ("coordinator", b"C\x00\x00\x00\x01\x00\x00N\x00\x00\x00\x02\x00\x00W\x00\x00\x00\x02\x007GET /status HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"),
    ("machine", b"W\x00\x00\x00\x02\x00\x9cHTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Wed, 25 Nov 2026 14:03:04 GMT\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"Version\":21}C\x00\x00\x00\x02\x00\x00"),
    ("coordinator", b"C\x00\x00\x00\x02\x00\x00"),
]
