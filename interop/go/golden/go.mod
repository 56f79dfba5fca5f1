module interop/golden

go 1.25.0
