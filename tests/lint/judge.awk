# Sorts what a tool said into planted defects, findings that are known to be none, and findings; for contrib/lint.
# Reads tests/lint/known, then the tool's output; prints "findings known planted".
#
# known: "# why" above entries "TOOL ID FILE: the line of source, without its indentation".
# planted: a line that ends with "/* TOOL: ID */" is to be found by that tool, as that.

function source(file, line,    text, i) {
	if (!(file in lines)) {
		for (i = 1; (getline text < file) > 0; i++)
			text_of[file, i] = text
		close(file)
		lines[file] = i
	}
	text = text_of[file, line]
	gsub(/^[ \t]+|[ \t]+$/, "", text)
	return text
}

function finding(text) {
	print text > log_file
	n_new++
}

BEGIN {
	n_new = n_known = n_planted = 0
	printf "" > log_file
}

FILENAME == "tests/lint/known" {
	if ($0 ~ /^(#|$)/ || $1 != tool)
		next
	known[substr($0, length($1) + 2)] = 0
	next
}

/^[^ ]+:[0-9]+:.*\[[^] ]+\]$/ {
	n = split($0, part, ":")
	file = part[1]
	line = part[2]
	id = $0
	sub(/.*\[/, "", id)
	sub(/\]$/, "", id)
	sub(/,.*/, "", id) # one check of several names
	if (($0 ~ /: note: /) || seen[file, line, id]++)
		next
	if (file == planted) {
		found[line, id] = 1
		next
	}
	entry = id " " file ": " source(file, line)
	if (entry in known) {
		known[entry]++
		n_known++
	} else {
		finding($0 "\n    " tool " " entry)
	}
}

END {
	source(planted, 1)
	for (i = 1; i < lines[planted]; i++) {
		text = text_of[planted, i]
		while (match(text, "/[*] " tool ": [^ ]+ [*]/")) {
			id = substr(text, RSTART + length(tool) + 5, RLENGTH - length(tool) - 8)
			text = substr(text, RSTART + RLENGTH)
			if ((i, id) in found)
				n_planted++
			else
				finding(planted ":" i ": " tool " did not find what is planted here [" id "]")
		}
	}
	if (n_planted == 0)
		finding(planted ": nothing is planted for " tool)
	if (whole == 0)
		for (entry in known)
			if (known[entry] == 0)
				finding("tests/lint/known: nothing matches any more: " tool " " entry)
	print n_new, n_known, n_planted
}
