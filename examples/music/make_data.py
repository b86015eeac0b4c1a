"""Write the music shop's eleven CSV files into a folder: made-up names, the same bytes on every run, nothing fetched.

python examples/music/make_data.py FOLDER
"""

from __future__ import annotations

import csv
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

GENRES = ["Rock", "Jazz", "Metal", "Blues", "Latin", "Reggae", "Pop", "Soundtrack", "Classical", "Electronic", "Folk", "Hip Hop"]
MEDIA_TYPES = ["MPEG audio", "AAC audio", "FLAC audio"]
FIRST = [
    "Ada",
    "Bruno",
    "Chloe",
    "Dmitri",
    "Elif",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kaori",
    "Liam",
    "Mina",
    "Noor",
    "Otto",
    "Petra",
]
LAST = [
    "Almeida",
    "Berger",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Gruber",
    "Haas",
    "Ito",
    "Jensen",
    "Kowalski",
    "Lindt",
    "Moreau",
    "Novak",
]
WORDS = [
    "Silver",
    "River",
    "Night",
    "Garden",
    "Stone",
    "Winter",
    "Electric",
    "Paper",
    "Ocean",
    "Velvet",
    "Broken",
    "Golden",
    "Quiet",
    "Northern",
]
THINGS = ["Machine", "Harbour", "Letters", "Motel", "Parade", "Signal", "Mirror", "Bridge", "Station", "Engine", "Orchard", "Lantern"]
COUNTRIES = ["Austria", "Brazil", "Canada", "Denmark", "France", "Germany", "India", "Japan", "Poland", "Portugal", "USA"]
PLAYLISTS = ["Morning", "Focus", "Running", "Dinner", "Long Drive", "Party", "Rainy Day", "Late Night", "Classics", "New Arrivals"]

Rows = list[list[object]]
chance = random.Random(20260101)


def title() -> str:
    return f"{chance.choice(WORDS)} {chance.choice(THINGS)}"


def catalogue() -> dict[str, tuple[list[str], Rows]]:
    """Genres, media types, artists, albums, tracks."""
    artists: Rows = [
        [number, f"The {title()}s" if number % 3 else f"{chance.choice(FIRST)} {chance.choice(LAST)}"] for number in range(1, 61)
    ]
    albums: Rows = [[number, title(), chance.randint(1, 60), chance.randint(1975, 2025)] for number in range(1, 121)]
    tracks: Rows = []
    for album in albums:
        for number in range(1, chance.randint(7, 13)):
            price = "1.29" if chance.random() < 0.2 else "0.99"
            length = chance.randint(120_000, 480_000)
            tracks.append(
                [len(tracks) + 1, title(), album[0], number, chance.randint(1, 12), chance.randint(1, 3), length, length * 32, price]
            )
    return {
        "genres": (["genre_id", "name"], [[number, name] for number, name in enumerate(GENRES, 1)]),
        "media_types": (["media_type_id", "name"], [[number, name] for number, name in enumerate(MEDIA_TYPES, 1)]),
        "artists": (["artist_id", "name"], artists),
        "albums": (["album_id", "title", "artist_id", "year"], albums),
        "tracks": (
            ["track_id", "name", "album_id", "number", "genre_id", "media_type_id", "milliseconds", "bytes", "unit_price"],
            tracks,
        ),
    }


def playlists(track_count: int) -> dict[str, tuple[list[str], Rows]]:
    """Playlists, and which tracks are on them: the data's one relation of many to many."""
    entries: Rows = []
    for number in range(1, len(PLAYLISTS) + 1):
        chosen = chance.sample(range(1, track_count + 1), chance.randint(25, 45))
        entries += [[number, track, position] for position, track in enumerate(chosen, 1)]
    return {
        "playlists": (["playlist_id", "name"], [[number, name] for number, name in enumerate(PLAYLISTS, 1)]),
        "playlist_entries": (["playlist_id", "track_id", "position"], entries),
    }


def sales(prices: list[str]) -> dict[str, tuple[list[str], Rows]]:
    """Employees, customers, invoices and their lines."""
    people = [f"{chance.choice(FIRST)} {chance.choice(LAST)}" for _ in range(56)]
    employees: Rows = [
        [number, people[number - 1], "Manager" if number == 1 else "Sales", "" if number == 1 else 1] for number in range(1, 7)
    ]
    customers: Rows = [
        [number, name, f"{name.lower().replace(' ', '.')}.{number}@mail.example", chance.choice(COUNTRIES), chance.randint(2, 6)]
        for number, name in enumerate(people[6:], 1)
    ]
    invoices: Rows = []
    lines: Rows = []
    for number in range(1, 301):
        bought = chance.sample(range(1, len(prices) + 1), chance.randint(1, 6))
        at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=29 * number)
        cents = sum(int(prices[track - 1].replace(".", "")) for track in bought)
        invoices.append([number, chance.randint(1, 50), at.isoformat(), f"{cents // 100}.{cents % 100:02}"])
        lines += [[number, line, track, prices[track - 1], 1] for line, track in enumerate(bought, 1)]
    return {
        "employees": (["employee_id", "name", "title", "reports_to"], employees),
        "customers": (["customer_id", "name", "email", "country", "support_rep_id"], customers),
        "invoices": (["invoice_id", "customer_id", "invoiced_at", "amount"], invoices),
        "invoice_lines": (["invoice_id", "line_number", "track_id", "unit_price", "quantity"], lines),
    }


def main() -> int:
    """Write the files."""
    if len(sys.argv) != 2:
        sys.exit("usage: make_data.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tables = catalogue()
    tracks = tables["tracks"][1]
    tables |= playlists(len(tracks)) | sales([str(track[-1]) for track in tracks])
    for name, (header, rows) in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
    print(f"{len(tables)} files with {sum(len(rows) for _, rows in tables.values()):,} rows in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
