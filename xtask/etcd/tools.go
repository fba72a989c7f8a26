//go:build tools

// Package tools pins the etcd that the tests and `cargo xtask cluster` build.
package tools

import _ "go.etcd.io/etcd/server/v3"
