// Go's buildlet client and cmd/buildlet, both of November 2021.
&[
    ("client", b"PUT /write?mode=416&path=sub%2Ffile HTTP/1.1\r\nHost: 127.0.0.1:5937\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 6\r\nAccept-Encoding: gzip\r\n\r\nhello\n"),
    ("machine", b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 14:03:05 GMT\r\nContent-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nOK"),
]
