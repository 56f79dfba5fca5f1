module interop/differential

go 1.25.0
