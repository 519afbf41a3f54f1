"""Programs that use Armature as a user would."""
