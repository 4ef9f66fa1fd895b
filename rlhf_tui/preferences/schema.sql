-- The preference store of one project. SQLite >= 3.37 (STRICT), one file a project.
-- What people said is never changed or removed: judgements, what was on screen, and undo/redo are only ever added.
PRAGMA application_id = 0x524C4846;
PRAGMA user_version = 1;

CREATE TABLE guideline(                       -- versioned: a judgement is only readable with the text that was on screen
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL UNIQUE, body_md TEXT NOT NULL,
  sha256 TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL) STRICT;

CREATE TABLE project(
  id INTEGER PRIMARY KEY CHECK(id = 1), name TEXT NOT NULL, seed INTEGER NOT NULL,
  guideline_id INTEGER REFERENCES guideline(id), tool_version TEXT NOT NULL, created_at TEXT NOT NULL) STRICT;

CREATE TABLE rater(                           -- who rated: everything but the handle is optional and self-declared
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, handle TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK(kind IN('human', 'import', 'rule', 'model')),
  card_json TEXT NOT NULL DEFAULT '{}', created_at TEXT NOT NULL) STRICT;

CREATE TABLE session(                         -- one sitting of one rater
  id INTEGER PRIMARY KEY, rater_id INTEGER NOT NULL REFERENCES rater(id), columns INTEGER NOT NULL, rows INTEGER NOT NULL,
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
  text TEXT NOT NULL, n_tokens INTEGER, finish_reason TEXT, created_at TEXT NOT NULL) STRICT;
CREATE INDEX completion_prompt ON completion(prompt_id);

CREATE TABLE task(                            -- two candidates offered to raters; which one is left is decided for each rater
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
  first_id INTEGER NOT NULL REFERENCES completion(id), second_id INTEGER NOT NULL REFERENCES completion(id),
  position INTEGER NOT NULL, created_at TEXT NOT NULL, CHECK(first_id <> second_id)) STRICT;
CREATE INDEX task_prompt ON task(prompt_id);
CREATE INDEX task_position ON task(position);

CREATE TABLE presentation(                    -- what was really on screen, written BEFORE the answer
  id INTEGER PRIMARY KEY, task_id INTEGER NOT NULL REFERENCES task(id), rater_id INTEGER NOT NULL REFERENCES rater(id),
  session_id INTEGER REFERENCES session(id),  -- null: the judgement was imported
  guideline_id INTEGER REFERENCES guideline(id),
  left_id INTEGER NOT NULL REFERENCES completion(id), right_id INTEGER NOT NULL REFERENCES completion(id),
  layout TEXT NOT NULL,                       -- of the screen; imported: 'file' (sides as in the file) or 'unordered' (sides unknown)
  shown_at TEXT NOT NULL, CHECK(left_id <> right_id)) STRICT;

CREATE TABLE judgement(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, presentation_id INTEGER NOT NULL REFERENCES presentation(id),
  task_id INTEGER NOT NULL REFERENCES task(id), rater_id INTEGER NOT NULL REFERENCES rater(id),
  outcome TEXT NOT NULL CHECK(outcome IN('ordered', 'tie', 'both_bad', 'skip')),
  winner_id INTEGER REFERENCES completion(id), strength INTEGER NOT NULL,  -- 1 = better, 2 = much better, 0 = not ordered
  note TEXT NOT NULL DEFAULT '', latency_ms INTEGER, created_at TEXT NOT NULL,
  CHECK((outcome = 'ordered') = (winner_id IS NOT NULL)),
  CHECK((outcome = 'ordered' AND strength IN(1, 2)) OR (outcome <> 'ordered' AND strength = 0))) STRICT;
CREATE INDEX judgement_task ON judgement(task_id, rater_id);
CREATE INDEX judgement_rater ON judgement(rater_id);

CREATE TABLE revision(                        -- undo and redo; the last row of a judgement says whether it stands
  id INTEGER PRIMARY KEY, judgement_id INTEGER NOT NULL REFERENCES judgement(id),
  action TEXT NOT NULL CHECK(action IN('undo', 'redo')),
  newest_judgement_id INTEGER NOT NULL,       -- of this rater at that time: once a newer one exists, redo is over
  created_at TEXT NOT NULL) STRICT;
CREATE INDEX revision_judgement ON revision(judgement_id);

CREATE VIEW standing_judgement AS             -- not undone
  SELECT * FROM judgement j WHERE COALESCE(
    (SELECT r.action FROM revision r WHERE r.judgement_id = j.id ORDER BY r.id DESC LIMIT 1), 'redo') = 'redo';
CREATE VIEW active_judgement AS               -- the newest standing answer of each rater to each task
  SELECT * FROM standing_judgement j WHERE NOT EXISTS(
    SELECT 1 FROM standing_judgement k WHERE k.task_id = j.task_id AND k.rater_id = j.rater_id AND k.id > j.id);

CREATE TRIGGER judgement_no_update BEFORE UPDATE ON judgement
  BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER judgement_no_delete BEFORE DELETE ON judgement
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
  WHEN NOT EXISTS(SELECT 1 FROM task t WHERE t.id = NEW.task_id AND NEW.left_id IN(t.first_id, t.second_id)
                  AND NEW.right_id IN(t.first_id, t.second_id))
  BEGIN SELECT RAISE(ABORT, 'a presentation shows the candidates of its task'); END;
CREATE TRIGGER judgement_answers_its_presentation BEFORE INSERT ON judgement
  WHEN NOT EXISTS(SELECT 1 FROM presentation p WHERE p.id = NEW.presentation_id AND p.task_id = NEW.task_id
                  AND p.rater_id = NEW.rater_id
                  AND (NEW.winner_id IS NULL OR NEW.winner_id IN(p.left_id, p.right_id)))
  BEGIN SELECT RAISE(ABORT, 'a judgement answers what its rater was shown'); END;
