/** Imported first by every command: says what is wrong before anything newer is needed. */
const NEEDED = 24;
const major = Number(process.versions.node.split(".")[0]);
if (major < NEEDED) {
  process.stderr.write(
    `mr needs Node ${NEEDED}, and this is Node ${process.versions.node}. The project brings its own: ` +
      "run it through npm (npm start, npm run mr -- ...) after npm ci, without --omit=optional.\n",
  );
  process.exit(1);
}
