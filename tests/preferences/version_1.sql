-- A store as version 1 wrote it: its schema, and what two people, a file, undo and redo left in it.
PRAGMA application_id = 0x524C4846;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE completion(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
  model_id INTEGER NOT NULL REFERENCES model(id), generation_id INTEGER REFERENCES generation(id), seed INTEGER,
  text TEXT NOT NULL, n_tokens INTEGER, finish_reason TEXT, created_at TEXT NOT NULL) STRICT;
INSERT INTO "completion" VALUES(1,'3c2295d5cd86ece8e2c9debaa0203a0a40a5c4d3e74e41d9618eaaf494208bc9',1,1,1,0,'Answer one 🤖 to Question 0?',5,'eos','2026-02-03T10:00:12.000+00:00');
INSERT INTO "completion" VALUES(2,'af13e46bfe36bbd1e44bbc0e0505eeec8ab2ca371fbc538864c266f8bd36c68d',1,1,1,1,'Answer two 🤖 to Question 0?',5,'eos','2026-02-03T10:00:13.000+00:00');
INSERT INTO "completion" VALUES(3,'da3a034f013eba13b69d3fabbac615c2eea04e619dc7ce09d4d40d602b25e6ef',2,1,1,0,'Answer one 🤖 to Question 1?',5,'eos','2026-02-03T10:00:15.000+00:00');
INSERT INTO "completion" VALUES(4,'b367012550b9784969da712b892c9d1ae95cdfbc18e4af76890dde13b92b5055',2,1,1,1,'Answer two 🤖 to Question 1?',5,'eos','2026-02-03T10:00:16.000+00:00');
INSERT INTO "completion" VALUES(5,'af4175c59e7f222875587c987cb5869d7925cb211a20d838a55e54646409e63e',3,1,1,0,'Answer one 🤖 to Question 2?',5,'eos','2026-02-03T10:00:18.000+00:00');
INSERT INTO "completion" VALUES(6,'75c362a3daa17086cdf32daba40fcd7c3f811a0d563a6e5c93fcc39563f410f3',3,1,1,1,'Answer two 🤖 to Question 2?',5,'eos','2026-02-03T10:00:19.000+00:00');
INSERT INTO "completion" VALUES(7,'ed4008c282e198bd34c02bcd722016b495e4047382c9b7e17b2ac2b04a0da679',4,1,1,0,'Answer one 🤖 to Question 3?',5,'eos','2026-02-03T10:00:21.000+00:00');
INSERT INTO "completion" VALUES(8,'0047b1c0d948db3d6c396d62bd7af9f57680eecd734459fd924a6dfeaa0cad8b',4,1,1,1,'Answer two 🤖 to Question 3?',5,'eos','2026-02-03T10:00:22.000+00:00');
INSERT INTO "completion" VALUES(9,'b00b2afca0ee235d8d7a7b065cb0db56eb056cfcf19178e603a81715d20e3feb',5,1,1,0,'Answer one 🤖 to Question 4?',5,'eos','2026-02-03T10:00:24.000+00:00');
INSERT INTO "completion" VALUES(10,'31a2587320debed577e607b85e6b8d2656b5704f5b67f303b804b3016eba6f4b',5,1,1,1,'Answer two 🤖 to Question 4?',5,'eos','2026-02-03T10:00:25.000+00:00');
INSERT INTO "completion" VALUES(11,'03ba03e5fd3e94509815b091368085c25f7200e0f720b493ed12663562b1b69a',6,1,1,0,'Answer one 🤖 to Question 5?',5,'eos','2026-02-03T10:00:27.000+00:00');
INSERT INTO "completion" VALUES(12,'1609ba20dc207dbe72becbe37081c27e1f1b02359d81467eb0db3a9a7b99d089',6,1,1,1,'Answer two 🤖 to Question 5?',5,'eos','2026-02-03T10:00:28.000+00:00');
INSERT INTO "completion" VALUES(13,'6d72ddbdf5c4fe5c41dd6131c04b6267b838cbda81edadff6caa64d35f98cd44',7,1,1,0,'Answer one 🤖 to Question 6?',5,'eos','2026-02-03T10:00:30.000+00:00');
INSERT INTO "completion" VALUES(14,'2c3db72893f05065982630b4ba1100a08a21792b4e4025b896f3aa8b80a4f1f7',7,1,1,1,'Answer two 🤖 to Question 6?',5,'eos','2026-02-03T10:00:31.000+00:00');
INSERT INTO "completion" VALUES(15,'8187c3b7b90ef72c503bb7a721aebf7135745cf8c7740fa195b252efc603fa6d',8,1,1,0,'Answer one 🤖 to Question 7?',5,'eos','2026-02-03T10:00:33.000+00:00');
INSERT INTO "completion" VALUES(16,'29c0808b26f55bea73e7433d46867cf96fa60f69d0024f51a8117c6f8e80abf5',8,1,1,1,'Answer two 🤖 to Question 7?',5,'eos','2026-02-03T10:00:34.000+00:00');
INSERT INTO "completion" VALUES(17,'f5f9ab64a04dd2b36daffa02eace81407635281d6e10ad791ef670afeaaeb2ac',9,1,1,0,'Answer one 🤖 to Question 8?',5,'eos','2026-02-03T10:00:36.000+00:00');
INSERT INTO "completion" VALUES(18,'47cd2014ec154290ee1c22e64487ed4e810303c22c50ab1a8ae1e8207126fa9b',9,1,1,1,'Answer two 🤖 to Question 8?',5,'eos','2026-02-03T10:00:37.000+00:00');
INSERT INTO "completion" VALUES(19,'6ef001e8077e1abe2488a1b662a4fd57f40bbc6fe7fd70782f032b8c16c9d0aa',1,1,1,2,'Quite another.',5,'eos','2026-02-03T10:00:39.000+00:00');
INSERT INTO "completion" VALUES(20,'b3ea43e3df7e915cddb5f425d261c579136771de7fb9bda382f64167bbf14f64',1,1,1,3,'And a fourth.',5,'eos','2026-02-03T10:00:40.000+00:00');
INSERT INTO "completion" VALUES(21,'c649f707f964bc764ec348a381d2a954231027a04cc8147779453080e44c81dc',10,2,NULL,NULL,'better',NULL,NULL,'2026-02-03T10:01:11.000+00:00');
INSERT INTO "completion" VALUES(22,'e84ae0c605f5824f1ca6b6253151091d7d42bdffe0790fb931989a1335d5a710',10,2,NULL,NULL,'worse',NULL,NULL,'2026-02-03T10:01:12.000+00:00');
CREATE TABLE generation(                      -- how a completion was sampled
  id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, temperature REAL NOT NULL, top_p REAL NOT NULL,
  max_new_tokens INTEGER NOT NULL, system_prompt TEXT NOT NULL) STRICT;
INSERT INTO "generation" VALUES(1,'804f0a86b104af0e310c3bbc76691cb8f901468c1655d2d0d768d37f27ed0103',0.9,1.0,64,'');
CREATE TABLE guideline(                       -- versioned: a judgement is only readable with the text that was on screen
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL UNIQUE, body_md TEXT NOT NULL,
  sha256 TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL) STRICT;
INSERT INTO "guideline" VALUES(1,1,'Be brief.','0912fbfe80f3ce6538f9186ef2d69eae0e1dd09049ccd393a78d2d1220d5f805','2026-02-03T10:00:01.000+00:00');
INSERT INTO "guideline" VALUES(2,2,'Be kind.','17902a25ee57a54fbdd937439d12c72b8c9ad35f206d169af225cfa93f5fec1e','2026-02-03T10:01:02.000+00:00');
CREATE TABLE judgement(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, presentation_id INTEGER NOT NULL REFERENCES presentation(id),
  task_id INTEGER NOT NULL REFERENCES task(id), rater_id INTEGER NOT NULL REFERENCES rater(id),
  outcome TEXT NOT NULL CHECK(outcome IN('ordered', 'tie', 'both_bad', 'skip')),
  winner_id INTEGER REFERENCES completion(id), strength INTEGER NOT NULL,  -- 1 = better, 2 = much better, 0 = not ordered
  note TEXT NOT NULL DEFAULT '', latency_ms INTEGER, created_at TEXT NOT NULL,
  CHECK((outcome = 'ordered') = (winner_id IS NOT NULL)),
  CHECK((outcome = 'ordered' AND strength IN(1, 2)) OR (outcome <> 'ordered' AND strength = 0))) STRICT;
INSERT INTO "judgement" VALUES(1,'78e510617311d8a3c2ce6f447ed4d57b',1,1,1,'ordered',1,1,'',1001,'2026-02-03T10:00:46.000+00:00');
INSERT INTO "judgement" VALUES(2,'35bf992dc9e9c616612e7696a6cecc1b',2,2,1,'ordered',3,2,'quicker “by far”',1002,'2026-02-03T10:00:48.000+00:00');
INSERT INTO "judgement" VALUES(3,'e4b06ce60741c7a87ce42c8218072e8c',3,3,1,'tie',NULL,0,'',1003,'2026-02-03T10:00:50.000+00:00');
INSERT INTO "judgement" VALUES(4,'9b810e766ec9d28663ca828dd5f4b3b2',4,4,1,'both_bad',NULL,0,'',1004,'2026-02-03T10:00:52.000+00:00');
INSERT INTO "judgement" VALUES(5,'b2221a58008a05a6c4647159c324c985',5,5,1,'skip',NULL,0,'',1005,'2026-02-03T10:00:54.000+00:00');
INSERT INTO "judgement" VALUES(6,'cd447e35b8b6d8fe442e3d437204e52d',6,6,1,'ordered',12,1,'',1006,'2026-02-03T10:00:56.000+00:00');
INSERT INTO "judgement" VALUES(7,'1a2b8f1ff1fd42a29755d4c13a902931',7,1,1,'ordered',2,1,'',1001,'2026-02-03T10:01:00.000+00:00');
INSERT INTO "judgement" VALUES(8,'05b6e6e307d4bedc51431193e6c3f339',8,1,2,'ordered',1,1,'',1001,'2026-02-03T10:01:05.000+00:00');
INSERT INTO "judgement" VALUES(9,'025b413f8a9a021ea648a7dd06839eb9',9,7,2,'tie',NULL,0,'',1007,'2026-02-03T10:01:07.000+00:00');
INSERT INTO "judgement" VALUES(10,'5fd2df8be9e76eec285d0cfb4f21a6352bc054f23391b0edf36f1321366bb25a',10,11,3,'ordered',21,1,'',NULL,'2026-02-03T10:01:15.000+00:00');
INSERT INTO "judgement" VALUES(11,'b9d179e06c0fd4f5f8130c4237730edf',11,7,1,'ordered',13,1,'',1007,'2026-02-03T10:01:18.000+00:00');
INSERT INTO "judgement" VALUES(12,'c381e88f38c0c8fd8712b8bc076f3787',12,8,1,'tie',NULL,0,'',1008,'2026-02-03T10:01:20.000+00:00');
CREATE TABLE model(                           -- anything that writes text
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK(kind IN('base', 'sft', 'policy', 'human', 'import')),
  sha TEXT NOT NULL, facts_json TEXT NOT NULL DEFAULT '{}', created_at TEXT NOT NULL) STRICT;
INSERT INTO "model" VALUES(1,'6c516828c42324c8030083a6ec563b3f9caf48b5a4763274de069a658638ea95','starter','base','abc','{"path": "/models/starter"}','2026-02-03T10:00:11.000+00:00');
INSERT INTO "model" VALUES(2,'0d2be094908da67002505a8e9d895a5a63804cfc2c1f5d9b689257f3faf38e1a','imported','import','','{}','2026-02-03T10:01:10.000+00:00');
CREATE TABLE presentation(                    -- what was really on screen, written BEFORE the answer
  id INTEGER PRIMARY KEY, task_id INTEGER NOT NULL REFERENCES task(id), rater_id INTEGER NOT NULL REFERENCES rater(id),
  session_id INTEGER REFERENCES session(id),  -- null: the judgement was imported
  guideline_id INTEGER REFERENCES guideline(id),
  left_id INTEGER NOT NULL REFERENCES completion(id), right_id INTEGER NOT NULL REFERENCES completion(id),
  layout TEXT NOT NULL,                       -- of the screen; imported: 'file' (sides as in the file) or 'unordered' (sides unknown)
  shown_at TEXT NOT NULL, CHECK(left_id <> right_id)) STRICT;
INSERT INTO "presentation" VALUES(1,1,1,1,1,1,2,'side-by-side','2026-02-03T10:00:45.000+00:00');
INSERT INTO "presentation" VALUES(2,2,1,1,1,4,3,'side-by-side','2026-02-03T10:00:47.000+00:00');
INSERT INTO "presentation" VALUES(3,3,1,1,1,5,6,'side-by-side','2026-02-03T10:00:49.000+00:00');
INSERT INTO "presentation" VALUES(4,4,1,1,1,8,7,'side-by-side','2026-02-03T10:00:51.000+00:00');
INSERT INTO "presentation" VALUES(5,5,1,1,1,9,10,'side-by-side','2026-02-03T10:00:53.000+00:00');
INSERT INTO "presentation" VALUES(6,6,1,1,1,12,11,'side-by-side','2026-02-03T10:00:55.000+00:00');
INSERT INTO "presentation" VALUES(7,1,1,1,1,1,2,'side-by-side','2026-02-03T10:00:59.000+00:00');
INSERT INTO "presentation" VALUES(8,1,2,2,2,1,2,'side-by-side','2026-02-03T10:01:04.000+00:00');
INSERT INTO "presentation" VALUES(9,7,2,2,2,14,13,'side-by-side','2026-02-03T10:01:06.000+00:00');
INSERT INTO "presentation" VALUES(10,11,3,NULL,2,21,22,'file','2026-02-03T10:01:14.000+00:00');
INSERT INTO "presentation" VALUES(11,7,1,3,2,13,14,'side-by-side','2026-02-03T10:01:17.000+00:00');
INSERT INTO "presentation" VALUES(12,8,1,3,2,15,16,'side-by-side','2026-02-03T10:01:19.000+00:00');
CREATE TABLE project(
  id INTEGER PRIMARY KEY CHECK(id = 1), name TEXT NOT NULL, seed INTEGER NOT NULL,
  guideline_id INTEGER REFERENCES guideline(id), tool_version TEXT NOT NULL, created_at TEXT NOT NULL) STRICT;
INSERT INTO "project" VALUES(1,'old',7,2,'0.1.0','2026-02-03T10:00:00.000+00:00');
CREATE TABLE prompt(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, messages_json TEXT NOT NULL,
  split TEXT NOT NULL CHECK(split IN('train', 'heldout')),
  source TEXT NOT NULL, tags_json TEXT NOT NULL DEFAULT '[]', created_at TEXT NOT NULL) STRICT;
INSERT INTO "prompt" VALUES(1,'c0cb717e94d6a233404a228ec8e5546c47948da491bb93a126e11cd3047153f7','[{"content":"You are kind.","role":"system"},{"content":"Question 0?","role":"user"}]','train','test','[]','2026-02-03T10:00:02.000+00:00');
INSERT INTO "prompt" VALUES(2,'cd169c2c58d65ec0fbd6ecaa8fecb90fbe4ea3c278c9060a289a0c7303e75570','[{"content":"You are kind.","role":"system"},{"content":"Question 1?","role":"user"}]','heldout','test','["talk"]','2026-02-03T10:00:03.000+00:00');
INSERT INTO "prompt" VALUES(3,'1a117251c42877402484196f71184d7c2118efb7c7ff84bedee04e82630f3b7c','[{"content":"You are kind.","role":"system"},{"content":"Question 2?","role":"user"}]','train','test','[]','2026-02-03T10:00:04.000+00:00');
INSERT INTO "prompt" VALUES(4,'f83439eb73dd2eccd69d250dc736456d556f36831ddd7b053fe76aa11c8ccca6','[{"content":"You are kind.","role":"system"},{"content":"Question 3?","role":"user"}]','heldout','test','["talk"]','2026-02-03T10:00:05.000+00:00');
INSERT INTO "prompt" VALUES(5,'15c5097265678e2f6c2e15ac35e8e3587f45b19adfb1a42a5729387f818e8ea2','[{"content":"You are kind.","role":"system"},{"content":"Question 4?","role":"user"}]','heldout','test','[]','2026-02-03T10:00:06.000+00:00');
INSERT INTO "prompt" VALUES(6,'b2dd129b042b07906736231d53f917c7fa0c149417ec1653da3cd66a4e3292b8','[{"content":"You are kind.","role":"system"},{"content":"Question 5?","role":"user"}]','train','test','["talk"]','2026-02-03T10:00:07.000+00:00');
INSERT INTO "prompt" VALUES(7,'849e98fef4110d9e6ee6ac81767646fc6ec56d5c353647b4a448018550e22618','[{"content":"You are kind.","role":"system"},{"content":"Question 6?","role":"user"}]','heldout','test','[]','2026-02-03T10:00:08.000+00:00');
INSERT INTO "prompt" VALUES(8,'45fca43a99a857dfb4be1fcafb7fd6ac28daea12143d7100665bb89a34e79924','[{"content":"You are kind.","role":"system"},{"content":"Question 7?","role":"user"}]','train','test','["talk"]','2026-02-03T10:00:09.000+00:00');
INSERT INTO "prompt" VALUES(9,'674d4f09f5aa183adb063004db723acc0f95b79e44ab66b089f0564c452ae43b','[{"content":"You are kind.","role":"system"},{"content":"Question 8?","role":"user"}]','train','test','[]','2026-02-03T10:00:10.000+00:00');
INSERT INTO "prompt" VALUES(10,'999116f2af5a55ee978502be4626699a0f8cc113ec162f7f6d46efcfeef22ca9','[{"content":"From a file?","role":"user"}]','train','file','[]','2026-02-03T10:01:09.000+00:00');
CREATE TABLE rater(                           -- who rated: everything but the handle is optional and self-declared
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, handle TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK(kind IN('human', 'import', 'rule', 'model')),
  card_json TEXT NOT NULL DEFAULT '{}', created_at TEXT NOT NULL) STRICT;
INSERT INTO "rater" VALUES(1,'cd613e30d8f16adf91b7584a2265b1f5','me','human','{"languages": "en"}','2026-02-03T10:00:42.000+00:00');
INSERT INTO "rater" VALUES(2,'1e2feb89414c343c1027c4d1c386bbc4','you','human','{}','2026-02-03T10:00:43.000+00:00');
INSERT INTO "rater" VALUES(3,'afbd67f9619699cfe1988ad9f06c144a','imported','import','{}','2026-02-03T10:01:08.000+00:00');
CREATE TABLE revision(                        -- undo and redo; the last row of a judgement says whether it stands
  id INTEGER PRIMARY KEY, judgement_id INTEGER NOT NULL REFERENCES judgement(id),
  action TEXT NOT NULL CHECK(action IN('undo', 'redo')),
  newest_judgement_id INTEGER NOT NULL,       -- of this rater at that time: once a newer one exists, redo is over
  created_at TEXT NOT NULL) STRICT;
INSERT INTO "revision" VALUES(1,6,'undo',6,'2026-02-03T10:00:57.000+00:00');
INSERT INTO "revision" VALUES(2,6,'redo',6,'2026-02-03T10:00:58.000+00:00');
INSERT INTO "revision" VALUES(3,12,'undo',12,'2026-02-03T10:01:21.000+00:00');
INSERT INTO "revision" VALUES(4,11,'undo',12,'2026-02-03T10:01:22.000+00:00');
CREATE TABLE session(                         -- one sitting of one rater
  id INTEGER PRIMARY KEY, rater_id INTEGER NOT NULL REFERENCES rater(id), columns INTEGER NOT NULL, rows INTEGER NOT NULL,
  tool_version TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT) STRICT;
INSERT INTO "session" VALUES(1,1,80,24,'0.1.0','2026-02-03T10:00:44.000+00:00','2026-02-03T10:01:01.000+00:00');
INSERT INTO "session" VALUES(2,2,80,24,'0.1.0','2026-02-03T10:01:03.000+00:00',NULL);
INSERT INTO "session" VALUES(3,1,80,24,'0.1.0','2026-02-03T10:01:16.000+00:00',NULL);
CREATE TABLE task(                            -- two candidates offered to raters; which one is left is decided for each rater
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
  first_id INTEGER NOT NULL REFERENCES completion(id), second_id INTEGER NOT NULL REFERENCES completion(id),
  position INTEGER NOT NULL, created_at TEXT NOT NULL, CHECK(first_id <> second_id)) STRICT;
INSERT INTO "task" VALUES(1,'962de06de5f1db0e8b0cb9028198ca5113639d0b36bde9eed6f6e27fee7283bf',1,1,2,3494982138335100074,'2026-02-03T10:00:14.000+00:00');
INSERT INTO "task" VALUES(2,'327e32c11418b264285a3300ebecd874c14155b12d690f523f59d90d6ea77515',2,4,3,510868338194807668,'2026-02-03T10:00:17.000+00:00');
INSERT INTO "task" VALUES(3,'697496aacc19f51542482847864cb86f1ad0da73c6e069ee04797ad83460a60a',3,6,5,5341309924088972973,'2026-02-03T10:00:20.000+00:00');
INSERT INTO "task" VALUES(4,'cc9207a8ca01620034d510d3795f2ebdd77af66797df11090d7fedaf7a08c7f3',4,8,7,2794105477342043672,'2026-02-03T10:00:23.000+00:00');
INSERT INTO "task" VALUES(5,'79717874b285b2c4f6c637b918a255f0a5fc67ee4979f3439e971922f435b5e8',5,10,9,8338031470515577425,'2026-02-03T10:00:26.000+00:00');
INSERT INTO "task" VALUES(6,'0c7cf43dee029797b6f04f16980b6bfcc0c4b391837d8f99d7b6b5eb9da1e5ef',6,11,12,4308868018841520557,'2026-02-03T10:00:29.000+00:00');
INSERT INTO "task" VALUES(7,'20edc81b1d9d45ce573eaaeeb35aff7a1f55938a0f77b3c31e8f4ad9e313965a',7,14,13,7302606909257643404,'2026-02-03T10:00:32.000+00:00');
INSERT INTO "task" VALUES(8,'5d5ebd678462b5bde3788534a2b32cd46fc6fcbdefbefc81fc90b8f7baa25846',8,16,15,4925499809354293032,'2026-02-03T10:00:35.000+00:00');
INSERT INTO "task" VALUES(9,'97bd9a37194694078c690cb17886bda973338c8743c5ebe740b91a30c3f9487e',9,18,17,5639771902206723517,'2026-02-03T10:00:38.000+00:00');
INSERT INTO "task" VALUES(10,'6f500e4a9559bc4890d00b8f68ec7ea625f45ddaa7d85e1755172ec29c236923',1,19,20,2076958209398954446,'2026-02-03T10:00:41.000+00:00');
INSERT INTO "task" VALUES(11,'f6dea6b9199dfe55216b4ccdd8c092363a8d8039ef4cd05d9e994a24f7785dc5',10,21,22,1835716590187660323,'2026-02-03T10:01:13.000+00:00');
CREATE INDEX session_rater ON session(rater_id);
CREATE INDEX prompt_split ON prompt(split);
CREATE TRIGGER prompt_stays_in_its_split BEFORE UPDATE OF split ON prompt
  BEGIN SELECT RAISE(ABORT, 'a prompt never changes its split'); END;
CREATE INDEX completion_prompt ON completion(prompt_id);
CREATE INDEX task_prompt ON task(prompt_id);
CREATE INDEX task_position ON task(position);
CREATE INDEX judgement_task ON judgement(task_id, rater_id);
CREATE INDEX judgement_rater ON judgement(rater_id);
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
COMMIT;
