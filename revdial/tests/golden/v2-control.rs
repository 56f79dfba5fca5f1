// cmd/buildlet of September 2026 and the Dialer of Go's revdial/v2: the control connection.
&[
    ("machine", b"GET /reverse HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nX-Go-Builder-Hostname: here\r\nX-Go-Builder-Key: 4d8129e2963df29b29cab65e108397d1\r\nX-Go-Builder-Version: 29\r\nX-Go-Host-Type: host-linux-amd64-localdev\r\nX-Revdial-Version: 2\r\n\r\n"),
    ("coordinator", b"HTTP/0.0 101 Switching Protocols\r\n\r\n{\"command\":\"keep-alive\"}\n{\"command\":\"conn-ready\",\"connPath\":\"/revdial?revdial.dialer=2746d6212483a774ad1cebd09793bf19\"}\n{\"command\":\"keep-alive\"}\n"),
]
