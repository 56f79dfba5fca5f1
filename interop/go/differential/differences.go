package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A difference is a row of the file: in which replies, in what, between which values. `*` in any of them is any text; in the
// first three there may be several, with `or` between them.
type difference struct {
	request, peer, field string
	columns              []*regexp.Regexp
	seen                 bool
}

// readDifferences reads the rows of the file's tables: request, peer, field, Go, ours, why.
func readDifferences(path string) ([]*difference, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rows []*difference
	for number, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| request ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 6 {
			return nil, fmt.Errorf("%s:%d: a row has six cells", path, number+1)
		}
		row := &difference{request: cells[0], peer: cells[1], field: cells[2]}
		for column, cell := range cells[:5] {
			pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.Trim(cell, "`")), `\*`, ".*")
			if column < 3 {
				pattern = strings.ReplaceAll(pattern, " or ", "|")
			}
			row.columns = append(row.columns, regexp.MustCompile("^("+pattern+")$"))
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, errors.New(path + " has no rows")
	}
	return rows, nil
}

func isAllowed(rows []*difference, values ...string) bool {
	for n := range values {
		values[n] = escape(values[n])
	}
	found := false
	for _, row := range rows {
		matches := true
		for n, column := range row.columns {
			matches = matches && column.MatchString(values[n])
		}
		row.seen = row.seen || matches
		found = found || matches
	}
	return found
}

// escape is a value as the file has it, on one line and without what ends a cell.
func escape(text string) string {
	quoted := fmt.Sprintf("%q", text)
	return strings.NewReplacer("|", "¦", `\"`, `"`, "`", "'").Replace(quoted[1 : len(quoted)-1])
}
