# Prints rows as pg_dump does for a table of orders, until at least `bytes` were written.
#   awk -v bytes=1073741824 -f rows.awk
# Integers below 2^53 only and a Park-Miller generator, so that every awk prints the same bytes.
function next_int(n) { seed = (seed * 16807) % 2147483647; return seed % n }
function token(   high) { high = next_int(2147483647); return sprintf("%08x%08x", high, next_int(2147483647)) }
function pick(list, n) { return list[next_int(n) + 1] }
BEGIN {
    seed = 20261121
    surnames = split("Adler Baker Costa Dietrich Evans Fischer Garcia Horvat Ivanov Jensen Kowalski Larsen Moreau Novak Okafor Patel Quinn Rossi Silva Tanaka Ueda Virtanen Weber Xu Yilmaz Zimmermann", surname)
    names = split("Ada Ben Clara David Emma Felix Greta Hugo Ines Jonas Karin Lena Marco Nina Oscar Paula Quentin Rosa Samir Tessa Ulrich Vera Walter Xenia Yara Zeno", name)
    states = split("new paid paid paid packed shipped shipped shipped shipped returned cancelled", state)
    domains = split("com org net", domain)
    words = split("please leave the parcel with a neighbour ring twice gift wrap no invoice inside call before delivery fragile second floor back door after six thanks urgent reorder same as last time blue instead of green", word)
    print "--\n-- PostgreSQL database dump\n--\n"
    head = "COPY public.orders (id, token, placed_at, customer, email, state, cents, currency, note) FROM stdin;"
    print head; written = length(head) + 40
    while (written < bytes) {
        id++; clock += next_int(90)
        first = pick(name, names); last = pick(surname, surnames)
        note = ""; for (n = next_int(14); n > 0; n--) note = note (note == "" ? "" : " ") pick(word, words)
        day = int(clock / 86400); second = clock % 86400
        row = sprintf("%d\t%s\t%04d-%02d-%02d %02d:%02d:%02d.%06d+00\t%s %s\t%s.%s%d@example.%s\t%s\t%d\t%s\t%s",
            id, token(), 2020 + int(day / 336) % 10, int(day / 28) % 12 + 1, day % 28 + 1,
            int(second / 3600), int(second / 60) % 60, second % 60, next_int(1000000),
            first, last, tolower(first), tolower(last), next_int(10000), pick(domain, domains),
            pick(state, states), 99 + next_int(250000), next_int(5) ? "EUR" : "USD", note == "" ? "\\N" : note)
        print row; written += length(row) + 1
    }
    print "\\."
}
