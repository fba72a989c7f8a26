module portolan.dev/xtask/pause

go 1.26.0
