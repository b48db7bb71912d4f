"""Records counted: in dumps however they are cut, among files, in what commands say."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidate import counting
from consolidate.counting import DumpCounter, StoredRecords, among_files, in_words
from consolidate.desire.servers import _drill
from consolidate.kinds import Catalogue, data_folder
from consolidate.manifest import DrillWord

KINDS = Catalogue([data_folder("templates")])
MYSQL = _drill(DrillWord.model_validate(KINDS["mysql"].recipe["drill"]))
MAIL = _drill(DrillWord.model_validate(KINDS["mail"].recipe["drill"]))
DUMP = """\
-- MariaDB dump
CREATE DATABASE /*!32312 IF NOT EXISTS*/ `mysql`;
USE `mysql`;
CREATE TABLE `global_priv` (
  `Host` char(60)
);
INSERT INTO `global_priv` VALUES
('localhost','root'),
('localhost','mysql');
USE `mysqlish`;
CREATE TABLE `empty` (
  `id` int(11) DEFAULT NULL
) ENGINE=InnoDB
 PARTITION BY RANGE (`id`)
(PARTITION `p0` VALUES LESS THAN (10) ENGINE = InnoDB,
 PARTITION `p1` VALUES LESS THAN MAXVALUE ENGINE = InnoDB);
/*!50001 CREATE VIEW `seen` AS SELECT
 1 AS `id` */;
CREATE TABLE `a``b` (
  `t` text
) ENGINE=InnoDB;
INSERT INTO `a``b` VALUES
(1,'a line\\n(2,\\'no row\\')'),
(2,'INSERT INTO `x` VALUES');
INSERT INTO `a``b` VALUES
(3,NULL);
DELIMITER ;;
CREATE TRIGGER t AFTER INSERT ON `a``b` FOR EACH ROW
INSERT INTO `a``b` VALUES
(9,'of a program');;
DELIMITER ;
USE `zoo`;
CREATE TABLE `generated` (
  `id` int(11)
);
INSERT INTO `generated` (`id`) VALUES
(1),
(2);
-- Dump completed on 2026-11-27
"""
COUNTS = {"mysqlish.empty": 0, "mysqlish.a``b": 3, "zoo.generated": 2}


def counted(*parts: bytes) -> dict[str, int]:
    assert MYSQL is not None and MYSQL.dumped is not None
    counter = DumpCounter(MYSQL.dumped)
    for part in parts:
        counter.feed(part)
    return counter.counts()


@given(st.lists(st.integers(0, len(DUMP)), max_size=12))
def test_rows_of_each_table_are_counted_wherever_the_dump_is_cut(cuts: list[int]) -> None:
    """What only looks like a row is none: text, programs, partitions, what MariaDB keeps of itself."""
    text, edges = DUMP.encode(), sorted({0, *cuts, len(DUMP)})
    assert counted(*(text[a:b] for a, b in itertools.pairwise(edges))) == COUNTS


def test_a_line_of_any_length_is_one_row_and_is_not_kept() -> None:
    """A picture in a column: what is looked at is the beginning of its line alone."""
    assert MYSQL is not None and MYSQL.dumped is not None
    counter = DumpCounter(MYSQL.dumped)
    for part in (
        b"USE `d`;\nCREATE TABLE `t` (\n);\nINSERT INTO `t` VALUES\n(1,0x",
        *[b"AB" * 32_000] * 50,
        b"),\n(2,0x);\n",
    ):
        counter.feed(part)
        assert len(counter._head) <= counting.HEAD + 64_000
    assert counter.counts() == {"d.t": 2}


def test_a_dump_that_ends_within_a_line_has_that_row_too() -> None:
    assert counted(b"USE `d`;\nINSERT INTO `t` VALUES\n(1),\n(2)") == {"d.t": 2}


def test_messages_are_the_files_of_a_mailbox_that_hold_one() -> None:
    """Its index, what is being written, and the queue are none; one in a folder is."""
    assert MAIL is not None and MAIL.stored is not None
    box = "mail/acme.test/ada/Maildir"
    paths = [
        f"{box}/new/1.M1",
        f"{box}/cur/2.M2:2,S",
        f"{box}/.Sent/cur/3.M3:2,S",
        f"{box}/tmp/4",
        f"{box}/dovecot-uidlist",
    ]
    paths += [f"{box}/new", f"{box}/.Sent", "mail/acme.test/bob/Maildir/new/5", "spool/incoming/6", f"{box}/cur"]
    assert among_files(MAIL.stored, paths) == {"ada@acme.test": 3, "bob@acme.test": 1}
    assert among_files(StoredRecords("x/(.*)", r"\1"), ["y/z"]) == {}


def test_what_a_command_says_is_added_up_or_refused() -> None:
    assert in_words("ada@acme.test\t2\nbob\t0\nada@acme.test\t3\n") == {"ada@acme.test": 5, "bob": 0}
    for wrong in ("Error: no such table", "ada\t", "ada\t-1", "ada 3"):
        with pytest.raises(ValueError, match="no name, tab and number"):
            in_words(wrong)


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ({"count": ["x"]}, "belong together"),
        ({"stored": {"path": ".", "name": "x"}}, "belong together"),
        ({"count": ["x"], "dumped": {"name": "(", "record": "x"}}, "the regular expression"),
        ({"count": ["x"], "dumped": {"name": "x", "record": "x"}}, "no group"),
        ({"count": ["x"], "dumped": {"name": "(x)", "record": "x", "skip": ["x"]}}, "two expressions"),
        ({"page": {"port": 80, "path": "/ HTTP/1.0\r\nX: y"}}, "path"),
    ],
)
def test_a_manifest_that_can_t_be_meant_is_refused(word: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        DrillWord.model_validate(word)
