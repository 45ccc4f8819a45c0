"""Tables in files of Parquet and Arrow, read where they lie: row groups are the chunks.

`fields` says which columns hold numbers, `files` opens one file, `opening` finds the files of a
table and chooses its columns, `rows` reads rows of all files by their numbers.
"""
