// Go's buildlet client and cmd/buildlet, both of November 2021.
&[
    ("client", b"POST /connect-ssh HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\nX-Go-Authorized-Key: \r\nX-Go-Ssh-User: \r\n\r\n"),
    ("machine", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\nConnection: Upgrade\r\n\r\n"),
    ("client", b"SSH-2.0-client\r\n"),
    ("machine", b"SSH-2.0-server\r\n"),
]
