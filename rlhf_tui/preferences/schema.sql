-- The preference store of one project. SQLite >= 3.37 (STRICT), one file a project.
-- What people said is never changed or removed: judgements, what was on screen, and undo/redo are only ever added.
-- Every row that another copy of the project may hold too has a uid: copies are merged by it.
PRAGMA application_id = 0x524C4846;
PRAGMA user_version = 2;

CREATE TABLE guideline(                       -- versioned: a judgement is only readable with the text that was on screen
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL UNIQUE, body_md TEXT NOT NULL,
  sha256 TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL) STRICT;

CREATE TABLE project(
  id INTEGER PRIMARY KEY CHECK(id = 1), name TEXT NOT NULL, seed INTEGER NOT NULL,
  guideline_id INTEGER REFERENCES guideline(id), tool_version TEXT NOT NULL, created_at TEXT NOT NULL) STRICT;

CREATE TABLE rater(                           -- who rated: everything but the handle is optional and self-declared
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, handle TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK(kind IN('human', 'import', 'rule', 'model')),
  card_json TEXT NOT NULL DEFAULT '{}',
  consent INTEGER NOT NULL DEFAULT 0 CHECK(consent IN(0, 1)),  -- may the handle and the card leave this project?
  created_at TEXT NOT NULL) STRICT;

CREATE TABLE session(                         -- one sitting of one rater
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, rater_id INTEGER NOT NULL REFERENCES rater(id),
  columns INTEGER NOT NULL, rows INTEGER NOT NULL,
  tool_version TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT) STRICT;
CREATE INDEX session_rater ON session(rater_id);

CREATE TABLE prompt(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, messages_json TEXT NOT NULL,
  split TEXT NOT NULL CHECK(split IN('train', 'heldout')),
  source TEXT NOT NULL, tags_json TEXT NOT NULL DEFAULT '[]', created_at TEXT NOT NULL) STRICT;
CREATE INDEX prompt_split ON prompt(split);
CREATE TRIGGER prompt_stays_in_its_split BEFORE UPDATE OF split ON prompt
  BEGIN SELECT RAISE(ABORT, 'a prompt never changes its split'); END;

CREATE TABLE model(                           -- anything that writes text
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK(kind IN('base', 'sft', 'policy', 'human', 'import')),
  sha TEXT NOT NULL, facts_json TEXT NOT NULL DEFAULT '{}', created_at TEXT NOT NULL) STRICT;

CREATE TABLE generation(                      -- how a completion was sampled
  id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, temperature REAL NOT NULL, top_p REAL NOT NULL,
  max_new_tokens INTEGER NOT NULL, system_prompt TEXT NOT NULL) STRICT;

CREATE TABLE completion(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
  model_id INTEGER NOT NULL REFERENCES model(id), generation_id INTEGER REFERENCES generation(id), seed INTEGER,
  characters INTEGER NOT NULL,                -- length of the text; before it, so that reading it does not read the text
  n_tokens INTEGER, finish_reason TEXT,
  edited_from INTEGER REFERENCES completion(id),  -- a person's better version of that completion
  created_at TEXT NOT NULL, text TEXT NOT NULL) STRICT;
CREATE INDEX completion_prompt ON completion(prompt_id);

CREATE TABLE near_duplicate(                  -- completions that are offered to nobody: too like one that is
  completion_id INTEGER PRIMARY KEY REFERENCES completion(id),
  like_id INTEGER NOT NULL REFERENCES completion(id), similarity REAL NOT NULL) STRICT;

CREATE TABLE score(                           -- what a reward model thinks of a completion; never shown to a rater
  completion_id INTEGER PRIMARY KEY REFERENCES completion(id), score REAL NOT NULL, run TEXT NOT NULL) STRICT;

CREATE TABLE task(                            -- candidates offered together; in which order is decided for each rater
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK(kind IN('pair', 'rank', 'rate', 'accept')),
  prompt_id INTEGER NOT NULL REFERENCES prompt(id),
  round INTEGER NOT NULL,                     -- how many tasks of this kind the prompt had before this one
  position INTEGER NOT NULL,                  -- a random place in the queue; -1: not in it
  created_at TEXT NOT NULL) STRICT;
CREATE INDEX task_prompt ON task(prompt_id);
CREATE INDEX task_queue ON task(kind, round, position);
CREATE TABLE task_item(
  task_id INTEGER NOT NULL REFERENCES task(id), slot INTEGER NOT NULL,
  completion_id INTEGER NOT NULL REFERENCES completion(id),
  PRIMARY KEY(task_id, slot), UNIQUE(task_id, completion_id)) STRICT, WITHOUT ROWID;
CREATE INDEX task_item_completion ON task_item(completion_id);

CREATE TABLE presentation(                    -- what was really on screen, written BEFORE the answer
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE,
  task_id INTEGER NOT NULL REFERENCES task(id), rater_id INTEGER NOT NULL REFERENCES rater(id),
  session_id INTEGER REFERENCES session(id),  -- null: the judgement was imported
  guideline_id INTEGER REFERENCES guideline(id),
  purpose TEXT NOT NULL CHECK(purpose IN('label', 'repeat')),
  order_json TEXT NOT NULL,                   -- completion ids in the order on screen
  layout TEXT NOT NULL,                       -- of the screen; imported: 'file' (order as in the file) or 'unordered'
  selection TEXT NOT NULL CHECK(selection IN('random', 'active', 'gold', 'repeat', 'edit', 'import')),
  predicted REAL,                             -- the reward model's probability that the first of a pair is better
  shown_at TEXT NOT NULL) STRICT;
CREATE INDEX presentation_task ON presentation(task_id, rater_id, purpose);

CREATE TABLE judgement(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, presentation_id INTEGER NOT NULL REFERENCES presentation(id),
  task_id INTEGER NOT NULL REFERENCES task(id), rater_id INTEGER NOT NULL REFERENCES rater(id),
  purpose TEXT NOT NULL CHECK(purpose IN('label', 'repeat')),
  outcome TEXT NOT NULL CHECK(outcome IN('ordered', 'tie', 'both_bad', 'rated', 'accepted', 'skip', 'discard')),
  strength INTEGER NOT NULL CHECK(strength BETWEEN 0 AND 2),  -- of an ordered pair: 1 better, 2 much better; else 0
  note TEXT NOT NULL DEFAULT '', flags_json TEXT NOT NULL DEFAULT '[]', latency_ms INTEGER,
  created_at TEXT NOT NULL,                   -- after that of every older row of this rater
  CHECK(outcome = 'ordered' OR strength = 0)) STRICT;
CREATE INDEX judgement_answer ON judgement(rater_id, task_id, purpose, outcome, created_at);
CREATE INDEX judgement_task ON judgement(task_id);
CREATE INDEX judgement_time ON judgement(rater_id, created_at);
CREATE TABLE judgement_item(                  -- one candidate of a judgement that says something
  judgement_id INTEGER NOT NULL REFERENCES judgement(id), place INTEGER NOT NULL,  -- where it stood on screen, from 0
  completion_id INTEGER NOT NULL REFERENCES completion(id),
  rank INTEGER CHECK(rank >= 1),              -- 1 is best, equal ranks are a tie
  rating INTEGER CHECK(rating BETWEEN 1 AND 5), accepted INTEGER CHECK(accepted IN(0, 1)),
  PRIMARY KEY(judgement_id, place)) STRICT, WITHOUT ROWID;

CREATE TABLE gold(                            -- the last row of a task says whether its answer is known, and what it is
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, task_id INTEGER NOT NULL REFERENCES task(id),
  judgement_id INTEGER REFERENCES judgement(id),  -- null: no longer gold
  created_at TEXT NOT NULL) STRICT;
CREATE INDEX gold_task ON gold(task_id);

CREATE TABLE revision(                        -- undo and redo; the last row of a judgement says whether it stands
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, judgement_id INTEGER NOT NULL REFERENCES judgement(id),
  action TEXT NOT NULL CHECK(action IN('undo', 'redo')),
  newest_uid TEXT NOT NULL,                   -- this rater's newest judgement at that time: a newer one ends redo
  created_at TEXT NOT NULL) STRICT;
CREATE INDEX revision_judgement ON revision(judgement_id);

-- After a merge the order of ids is not the order of time. Times of one rater never repeat within a store; where
-- those of two copies are equal the uid decides, so that both copies come to the same.
CREATE VIEW undone AS
  SELECT judgement_id FROM (
    SELECT judgement_id, action, MAX(created_at || uid) FROM revision GROUP BY judgement_id)
  WHERE action = 'undo';
CREATE VIEW standing_judgement AS             -- not undone
  SELECT * FROM judgement WHERE id NOT IN(SELECT judgement_id FROM undone);
CREATE VIEW active_judgement AS               -- the newest standing answer of each rater to each task, and to its repeat
  SELECT * FROM standing_judgement j WHERE NOT EXISTS(
    SELECT 1 FROM standing_judgement k
    WHERE k.rater_id = j.rater_id AND k.task_id = j.task_id AND k.purpose = j.purpose
    AND (+k.created_at, k.uid) > (j.created_at, j.uid));  -- the plus keeps SQLite from walking all by their time
CREATE VIEW gold_answer AS
  SELECT task_id, judgement_id FROM (
    SELECT task_id, judgement_id, MAX(created_at || uid) FROM gold GROUP BY task_id)
  WHERE EXISTS(SELECT 1 FROM active_judgement j WHERE j.id = judgement_id);

CREATE TRIGGER judgement_no_update BEFORE UPDATE ON judgement
  BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER judgement_no_delete BEFORE DELETE ON judgement
  BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER judgement_item_no_update BEFORE UPDATE ON judgement_item
  BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER judgement_item_no_delete BEFORE DELETE ON judgement_item
  BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER presentation_no_update BEFORE UPDATE ON presentation
  BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;
CREATE TRIGGER presentation_no_delete BEFORE DELETE ON presentation
  BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;
CREATE TRIGGER revision_no_update BEFORE UPDATE ON revision
  BEGIN SELECT RAISE(ABORT, 'revisions are append-only'); END;
CREATE TRIGGER revision_no_delete BEFORE DELETE ON revision
  BEGIN SELECT RAISE(ABORT, 'revisions are append-only'); END;
CREATE TRIGGER presentation_shows_its_task BEFORE INSERT ON presentation
  WHEN (SELECT group_concat(value) FROM (SELECT value FROM json_each(NEW.order_json) ORDER BY value))
    IS NOT (SELECT group_concat(completion_id) FROM (
      SELECT completion_id FROM task_item WHERE task_id = NEW.task_id ORDER BY completion_id))
  BEGIN SELECT RAISE(ABORT, 'a presentation shows the candidates of its task'); END;
CREATE TRIGGER judgement_answers_its_presentation BEFORE INSERT ON judgement
  WHEN NOT EXISTS(SELECT 1 FROM presentation p WHERE p.id = NEW.presentation_id AND p.task_id = NEW.task_id
                  AND p.rater_id = NEW.rater_id AND p.purpose = NEW.purpose)
  BEGIN SELECT RAISE(ABORT, 'a judgement answers what its rater was shown'); END;
CREATE TRIGGER judgement_item_stands_where_it_was_shown BEFORE INSERT ON judgement_item
  WHEN NOT EXISTS(SELECT 1 FROM judgement j JOIN presentation p ON p.id = j.presentation_id
                  WHERE j.id = NEW.judgement_id
                  AND json_extract(p.order_json, '$[' || NEW.place || ']') = NEW.completion_id)
  BEGIN SELECT RAISE(ABORT, 'a judgement names a candidate where it was not shown'); END;
