// Go's buildlet client and cmd/buildlet, both of November 2021.
&[
    ("client", b"POST /exec HTTP/1.1\r\nHost: 127.0.0.1:5937\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 80\r\nContent-Type: application/x-www-form-urlencoded\r\nAccept-Encoding: gzip\r\n\r\ncmd=%2Fbin%2Fsh&cmdArg=-c&cmdArg=echo+hello%3B+exit+42&debug=false&dir=&mode=sys"),
    ("machine", b"HTTP/1.1 200 OK\r\nTrailer: Process-State\r\nDate: Wed, 25 Nov 2026 14:03:05 GMT\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n0\r\nProcess-State: exit status 42\r\n\r\n"),
]
