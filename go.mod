module github.com/e2kit/e2kit

go 1.26
