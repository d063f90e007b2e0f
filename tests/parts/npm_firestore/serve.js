// Serves on the port that is given, and says when it does.
import { FirestoreServer } from "@firestore-emulator/server";

await new FirestoreServer().start(Number(process.argv[2]));
console.error("ready");
